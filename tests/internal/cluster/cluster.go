// Package cluster runs real etcd server processes for the fault suite, the
// histories and the benchmarks: one or several members on free loopback ports,
// with their data in one temporary directory, which Close removes. Members can
// be frozen, thawed, killed, restarted with the same data, replaced, emptied
// and set back to an earlier copy of their data.
//
// It is for Unix: freezing a process needs its signals. On other systems it
// compiles, and Stop and Cont return an error.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Options say what to start. The zero value is one member with etcd's defaults.
type Options struct {
	Members int      // default 1
	Binary  string   // default: Build
	Args    []string // further flags of etcd, for every member
	Dir     string   // parent of the temporary directory; default os.TempDir

	// PeerLinks puts a proxy before each member's peer port: Member.PeerLink.
	// Such a cluster's members cannot be replaced.
	PeerLinks bool
}

// Cluster is a set of running members. Its methods are for one goroutine;
// those of different Members may be called at the same time.
type Cluster struct {
	Members []*Member

	opt   Options
	dir   string
	token int // changes with each Empty, so that old members cannot mix with new ones
}

// Start builds the server if need be, starts the members and returns once a
// linearizable read went through each of them.
func Start(ctx context.Context, opt Options) (*Cluster, error) {
	if opt.Members == 0 {
		opt.Members = 1
	}
	if opt.Binary == "" {
		bin, err := Build(ctx)
		if err != nil {
			return nil, err
		}
		opt.Binary = bin
	}
	// A port that was free a moment ago may be taken by the time etcd binds it.
	var err error
	for range 3 {
		var c *Cluster
		if c, err = start(ctx, opt); err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func start(ctx context.Context, opt Options) (*Cluster, error) {
	dir, err := os.MkdirTemp(opt.Dir, "etcdlock-cluster-")
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c := &Cluster{opt: opt, dir: dir}
	ports, err := freePorts(2 * opt.Members)
	if err != nil {
		c.Close()
		return nil, err
	}
	for i := range opt.Members {
		m := &Member{
			Name: fmt.Sprintf("m%d", i), c: c, dir: filepath.Join(dir, fmt.Sprintf("m%d", i)),
			addr: ports[2*i], peer: ports[2*i+1], listen: ports[2*i+1],
		}
		c.Members = append(c.Members, m)
		if opt.PeerLinks {
			if m.PeerLink, err = faultproxy.New(m.listen); err != nil {
				c.Close()
				return nil, err
			}
			m.peer = m.PeerLink.Addr()
		}
	}
	if err := c.bootstrap(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// bootstrap starts every member on an empty directory.
func (c *Cluster) bootstrap(ctx context.Context) error {
	c.token++
	for _, m := range c.Members {
		m.state = "new"
		m.initial = c.initial()
		if err := m.start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

func (c *Cluster) initial() string {
	var parts []string
	for _, m := range c.Members {
		parts = append(parts, m.Name+"=http://"+m.peer)
	}
	return strings.Join(parts, ",")
}

// Endpoints are the members' client addresses, host:port, in order.
func (c *Cluster) Endpoints() []string {
	var eps []string
	for _, m := range c.Members {
		eps = append(eps, m.addr)
	}
	return eps
}

// WaitReady returns once a linearizable read went through each member.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, m := range c.Members {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Leader asks the members who leads and returns that member.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	for {
		for _, m := range c.Members {
			if st, err := m.status(ctx); err == nil && st.Leader == st.Header.MemberId {
				return m, nil
			}
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("cluster: no member leads: %w", err)
		}
	}
}

// Close kills every member, waits for the processes, and removes their data.
func (c *Cluster) Close() error {
	var errs []error
	for _, m := range c.Members {
		errs = append(errs, m.Kill())
		if m.PeerLink != nil {
			errs = append(errs, m.PeerLink.Close())
		}
	}
	errs = append(errs, os.RemoveAll(c.dir))
	return errors.Join(errs...)
}

// NewClient is a quiet client for the given addresses, with the settings that a
// lock's user should have: short dials, and pings that notice a dead peer.
func NewClient(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 2 * time.Second,
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		Logger: zap.NewNop(),
	})
}

// freePorts finds ports that the system gives to no connection by itself: a member that is down for a while wants its own again.
func freePorts(n int) (addrs []string, err error) {
	for tries := 0; len(addrs) < n; tries++ {
		// All are held until the last is found, so that no two are the same.
		l, lerr := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 16_000+rand.IntN(16_000)))
		switch {
		case lerr == nil:
			defer l.Close()
			addrs = append(addrs, l.Addr().String())
		case tries > 100:
			return nil, fmt.Errorf("cluster: %w", lerr)
		}
	}
	return addrs, nil
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
