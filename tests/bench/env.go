package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// sessionTTL is long enough that renewals, which both libraries send in the
// background, seldom fall into a measurement.
const sessionTTL = 60 * time.Second

// writesPerSecond is the unrelated load of the busy runs.
const writesPerSecond = 300

// An env is the cluster that a row runs on and everything opened for it.
type env struct {
	members   int
	busy      bool
	short     bool
	verbose   bool // show what was sent, by kind
	endpoints []string
	delayed   []string // the same members behind a proxy that delays
	rtt       time.Duration
	observer  *clientv3.Client // looks on; never part of what is measured

	names   atomic.Int64
	mu      sync.Mutex
	closers []func() // guarded by mu; run last to first
}

func (e *env) where() string {
	w := "1 member"
	if e.members != 1 {
		w = fmt.Sprintf("%d members", e.members)
	}
	if e.busy {
		return w + ", busy"
	}
	return w + ", idle"
}

// name is a lock that no earlier measurement has used.
func (e *env) name(what string) string {
	return fmt.Sprintf("/bench/%s/%d", what, e.names.Add(1))
}

// pick is n, or in a short run the smaller m.
func (e *env) pick(n, m int) int {
	if e.short {
		return m
	}
	return n
}

func (e *env) onClose(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closers = append(e.closers, f)
}

func (e *env) close() {
	e.mu.Lock()
	closers := e.closers
	e.closers = nil
	e.mu.Unlock()
	for i := len(closers) - 1; i >= 0; i-- {
		closers[i]()
	}
}

// newClient is one counted connection to the given endpoints.
func newClient(endpoints []string) (*clientv3.Client, *counter, error) {
	n := &counter{}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		DialOptions:          n.dialOptions(),
		Logger:               zap.NewNop(),
	})
	return c, n, err
}

// A pool is a number of sessions of one library. Up to 64 have a connection
// each; beyond that they share, as so many processes would share a machine.
type pool struct {
	lib      lib
	sessions []session
	clients  []*clientv3.Client
	counters []*counter
}

const connections = 64

func newPool(ctx context.Context, l lib, endpoints []string, n int) (*pool, error) {
	p := &pool{lib: l}
	for range min(n, connections) {
		c, k, err := newClient(endpoints)
		if err != nil {
			p.close()
			return nil, err
		}
		// concurrency cleans up on the client's context: with the servers gone that ends only with the client.
		context.AfterFunc(ctx, func() { _ = c.Close() })
		p.clients = append(p.clients, c)
		p.counters = append(p.counters, k)
	}
	p.sessions = make([]session, n)
	err := parallel(min(n, connections), func(w int) error {
		for i := w; i < n; i += connections {
			s, err := l.session(ctx, p.clients[w], sessionTTL)
			if err != nil {
				return err
			}
			p.sessions[i] = s
		}
		return nil
	})
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pool) close() {
	// Errors of a shutdown say nothing about what was measured before it.
	_ = parallel(min(len(p.sessions), connections), func(w int) error {
		for i := w; i < len(p.sessions); i += connections {
			if s := p.sessions[i]; s != nil {
				_ = s.Close()
			}
		}
		return nil
	})
	for _, c := range p.clients {
		_ = c.Close()
	}
}

func (p *pool) requests() (sum counts) {
	for _, c := range p.counters {
		for k, v := range c.snapshot() {
			sum[k] += v
		}
	}
	return sum
}

// told is what watches have told: in how many answers, of what size.
type told struct{ events, bytes int64 }

func (a told) sub(b told) told { return told{a.events - b.events, a.bytes - b.bytes} }

func (p *pool) received() (sum told) {
	for _, c := range p.counters {
		sum.events += c.events.Load()
		sum.bytes += c.eventBytes.Load()
	}
	return sum
}

// parallel runs f(0) to f(n-1) at once and joins their errors.
func parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// pause waits on a timer, for ageing a waiter or spacing measurements.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// both are the libraries in the order in which the columns stand.
func both() []lib { return []lib{oursLib, concurrencyLib} }

// pools opens n sessions of each library.
func pools(ctx context.Context, e *env, n int) ([]*pool, func(), error) {
	var ps []*pool
	closeAll := func() {
		for _, p := range ps {
			p.close()
		}
	}
	for _, l := range both() {
		p, err := newPool(ctx, l, e.endpoints, n)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("%s: %w", l.name, err)
		}
		ps = append(ps, p)
	}
	return ps, closeAll, nil
}

// puts watches the tickets of a lock. The function it returns waits until
// that many have been put since.
func (e *env) puts(ctx context.Context, name string) (func(n int) error, error) {
	seen := e.observer.Watch(ctx, name+"/", clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithCreatedNotify())
	if first := <-seen; first.Err() != nil {
		return nil, first.Err()
	}
	have := 0
	return func(n int) error {
		for have < n {
			r, ok := <-seen
			if !ok || r.Err() != nil {
				return fmt.Errorf("watching %s: %w", name, errors.Join(ctx.Err(), r.Err()))
			}
			have += len(r.Events)
		}
		return nil
	}, nil
}
