//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// noFsync: the processes are killed, never the machine, so what was written
// survives without it, and the disk does not set the pace.
var noFsync = []string{"--unsafe-no-fsync"}

// env is a cluster, and a client of it that no fault touches.
type env struct {
	*cluster.Cluster
	cli  *clientv3.Client
	user string // whom nodes log in as; empty without auth
	n    atomic.Int64
}

func newEnv(ctx context.Context, opt cluster.Options) (*env, error) {
	opt.Args = append(slices.Clone(opt.Args), noFsync...)
	c, err := cluster.Start(ctx, opt)
	if err != nil {
		return nil, err
	}
	cli, err := cluster.NewClient(c.Endpoints()...)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &env{Cluster: c, cli: cli}, nil
}

func (e *env) close() {
	e.cli.Close()
	e.Close()
}

// prefix is a fresh place for keys, so that trials do not meet.
func (e *env) prefix(kind string) string {
	return fmt.Sprintf("/faults/%s/%d", kind, e.n.Add(1))
}

// node stands for one machine: a client of its own, on links of its own.
type node struct {
	session
	cli     *clientv3.Client
	proxies []*faultproxy.Proxy
	wire    *wire
	linger  time.Duration // of its session's locks
}

// node connects through proxies to the given members (none: to all of them).
func (e *env) node(ctx context.Context, i impl, ttl time.Duration, members ...*cluster.Member) (*node, error) {
	if len(members) == 0 {
		members = e.Members
	}
	n := &node{wire: &wire{leases: map[int64]bounds{}}, linger: i.Linger()}
	var eps []string
	for _, m := range members {
		p, err := faultproxy.New(m.Addr())
		if err != nil {
			n.close()
			return nil, err
		}
		n.proxies = append(n.proxies, p)
		eps = append(eps, p.Addr())
	}
	var err error
	n.cli, err = clientv3.New(clientv3.Config{
		Endpoints: eps, DialTimeout: 2 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		Username: e.user, Password: "secret",
		DialOptions: []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(n.wire.unary), grpc.WithChainStreamInterceptor(n.wire.stream),
		},
	})
	if err != nil {
		n.close()
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if n.session, err = i.Open(ctx, n.cli, ttl); err != nil {
		n.close()
		return nil, fmt.Errorf("%s: open: %w", i.Name(), err)
	}
	return n, nil
}

// each applies a fault to every link of the node.
func (n *node) each(f func(*faultproxy.Proxy)) {
	for _, p := range n.proxies {
		f(p)
	}
}

func (n *node) hold(d faultproxy.Direction) { n.each(func(p *faultproxy.Proxy) { p.Hold(d) }) }

func (n *node) resume() { n.each((*faultproxy.Proxy).Resume) }

// reset lets the node go on as after a network that lost what it held.
func (n *node) reset() {
	n.each(func(p *faultproxy.Proxy) { p.Drop(); p.Resume() })
}

func (n *node) close() {
	n.reset()
	if n.session != nil {
		done := make(chan struct{})
		go func() { defer close(done); _ = n.session.Close() }()
		// Where a fault has broken an implementation for good, its Close may
		// never return: closing the client ends it.
		select {
		case <-done:
		case <-time.After(3 * time.Second):
		}
	}
	if n.cli != nil {
		n.cli.Close()
	}
	for _, p := range n.proxies {
		p.Close()
	}
}

func closeAll(nodes []*node) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.close)
	}
	wg.Wait()
}

// keys counts what stands under a prefix, asked through the untouched client.
func (e *env) keys(ctx context.Context, prefix string) (int64, error) {
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		r, err := e.cli.Get(try, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		cancel()
		if err == nil {
			return r.Count, nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
	}
}

// waitKeys waits until n keys stand under the prefix and says how long it took.
func (e *env) waitKeys(ctx context.Context, prefix string, n int64, limit time.Duration) (time.Duration, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		got, err := e.keys(ctx, prefix)
		if err == nil && got == n {
			return time.Since(start), nil
		}
		if perr := pause(ctx, 5*time.Millisecond); perr != nil {
			return time.Since(start), errors.Join(fmt.Errorf("%d keys under %s, not %d", got, prefix, n), err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// parallel runs f for 0..n-1, at most width at a time, and joins the errors.
func parallel(n, width int, f func(int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, width)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = f(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// eachImpl gives every implementation a cluster of its own and runs f for all
// at the same time: they wait for time-outs most of the while.
func (s *suite) eachImpl(ctx context.Context, opt cluster.Options, f func(context.Context, *env, impl) error) error {
	return parallel(len(s.impls), len(s.impls), func(j int) error {
		e, err := newEnv(ctx, opt)
		if err != nil {
			return err
		}
		defer e.close()
		if err := f(ctx, e, s.impls[j]); err != nil {
			return fmt.Errorf("%s: %w", s.impls[j].Name(), err)
		}
		return nil
	})
}
