//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

const (
	prompt    = 100 * time.Millisecond
	returnTTL = 6 * time.Second
	hung      = 3 * time.Second // a call that takes longer is counted as hung
)

var returnFaults = []struct {
	name  string
	node  func(*node)      // what happens to the link
	whole func(*env) error // or to the server
	after func(*env) error
	short bool
}{
	{name: "traffic lost both ways", short: true, node: func(n *node) { n.hold(faultproxy.Both) }},
	{name: "answers lost", node: func(n *node) { n.hold(faultproxy.ToClient) }},
	{name: "requests lost", node: func(n *node) { n.hold(faultproxy.ToServer) }},
	{name: "answers 800 ms late", node: func(n *node) {
		n.each(func(p *faultproxy.Proxy) { p.Delay(faultproxy.ToClient, 800*time.Millisecond) })
	}},
	{name: "connection refused", node: func(n *node) { n.each((*faultproxy.Proxy).Cut) }},
	{name: "its member frozen", short: true, whole: func(e *env) error { return e.Members[0].Stop() },
		after: func(e *env) error { return e.Members[0].Cont() }},
	{name: "etcd killed", whole: func(e *env) error { return e.Members[0].Kill() },
		after: func(e *env) error { return e.Members[0].Restart() }},
}

// caller is an implementation's lock that has further blocking calls.
type caller interface {
	Calls() map[string]func(context.Context) error
}

func runReturn(ctx context.Context, s *suite) error {
	return s.eachImpl(ctx, cluster.Options{}, func(ctx context.Context, e *env, i impl) error {
		for q, f := range returnFaults {
			if !s.want(f.name) || s.short && !f.short {
				continue
			}
			var t tally
			n := s.pick(10, 2)
			b, err := e.node(ctx, i, time.Minute)
			if err != nil {
				return err
			}
			nodes := make([]*node, n)
			calls := make([]map[string]func(context.Context) error, n)
			queued := make([]lock, n)
			err = parallel(n, n, func(j int) (err error) {
				if nodes[j], err = e.node(ctx, i, returnTTL); err != nil {
					return err
				}
				calls[j], queued[j], err = e.blocking(ctx, nodes[j], b)
				return err
			})
			if err != nil {
				return err
			}
			// Two waiters are in the queue when the fault comes: one is cancelled
			// in it; the other kinds of calls begin in it.
			waiting := make([]context.CancelCauseFunc, n)
			waited := make([]chan time.Time, n)
			for j := range n {
				wctx, cancel := context.WithCancelCause(ctx)
				waiting[j], waited[j] = cancel, make(chan time.Time, 1)
				go func() { _ = queued[j].Acquire(wctx); waited[j] <- time.Now() }()
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
			if f.whole != nil {
				if err := f.whole(e); err != nil {
					return err
				}
			}
			err = parallel(n, n, func(j int) error {
				if f.node != nil {
					f.node(nodes[j])
				}
				r := rand.New(rand.NewPCG(s.seed, uint64(q*1000+j)))
				names := sorted(counts(calls[j]))
				ends := make([]time.Duration, len(names)+1)
				for k := range ends {
					ends[k] = 50*time.Millisecond + time.Duration(r.Int64N(int64(450*time.Millisecond)))
				}
				return parallel(len(names)+1, len(names)+1, func(k int) error {
					if k < len(names) {
						late, stuck := overdue(ctx, calls[j][names[k]], ends[k])
						t.count(stuck || late > prompt, late, lateNote(names[k], stuck))
						return nil
					}
					if err := pause(ctx, ends[k]); err != nil {
						return err
					}
					began := time.Now()
					waiting[j](context.Canceled)
					var at time.Time
					select {
					case at = <-waited[j]:
					case <-time.After(hung):
					}
					stuck := at.IsZero()
					t.count(stuck || at.Sub(began) > prompt, max(0, at.Sub(began)), lateNote("queued Lock", stuck))
					return nil
				})
			})
			if f.after != nil {
				if aerr := f.after(e); aerr != nil {
					return aerr
				}
			}
			closeAll(append(compact(nodes), b))
			if err != nil {
				return err
			}
			if err := e.WaitReady(ctx); err != nil {
				return err
			}
			s.add(row{name: f.name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure("late by")})
		}
		return e.gone(ctx, s, i)
	})
}

func counts(m map[string]func(context.Context) error) map[string]int {
	c := map[string]int{}
	for k := range m {
		c[k] = 1
	}
	return c
}

func lateNote(name string, stuck bool) string {
	if stuck {
		return name + " hung"
	}
	return name + " late"
}

// overdue is by how much a call outlived its context.
func overdue(ctx context.Context, call func(context.Context) error, d time.Duration) (late time.Duration, stuck bool) {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	end, _ := limited.Deadline()
	returned := make(chan time.Time, 1)
	go func() { _ = call(limited); returned <- time.Now() }()
	select {
	case at := <-returned:
		return max(0, at.Sub(end)), false
	case <-time.After(d + hung):
		return 0, true
	}
}

// blocking prepares one of each kind of call, on keys of its own.
func (e *env) blocking(ctx context.Context, n, b *node) (map[string]func(context.Context) error, lock, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	calls := map[string]func(context.Context) error{}
	for _, o := range n.ops()[:len(n.ops())-1] {
		call, _, err := o.prepare(ctx, n, e.prefix("return"))
		if err != nil {
			return nil, nil, err
		}
		calls[o.name] = call
	}
	for _, pick := range []func(*node, string) lock{mutex, election} {
		l := pick(n, e.prefix("return"))
		if err := n.acquire(ctx, l); err != nil {
			return nil, nil, err
		}
		if c, ok := l.(caller); ok {
			for name, call := range c.Calls() {
				calls[name] = call
			}
		}
	}
	busy := e.prefix("return")
	if err := b.acquire(ctx, b.Rival(busy)); err != nil {
		return nil, nil, err
	}
	return calls, n.Mutex(busy), nil
}

// gone: with etcd gone for good, Unlock(context.Background()) is bounded by the
// hold's own deadline, Close by five seconds.
func (e *env) gone(ctx context.Context, s *suite, i impl) error {
	const name = "etcd gone for good, context.Background()"
	if !s.want(name) {
		return nil
	}
	n := s.pick(20, 4)
	nodes, locks := make([]*node, n), make([]lock, n)
	err := parallel(n, n, func(j int) (err error) {
		if nodes[j], err = e.node(ctx, i, returnTTL); err != nil {
			return err
		}
		locks[j] = nodes[j].Mutex(e.prefix("gone"))
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := nodes[j].acquire(limited, locks[j]); err != nil || nodes[j].linger == 0 || j%4 != 3 {
			return err
		}
		return locks[j].Release(limited) // a Close with an idle ticket
	})
	defer func() { closeAll(compact(nodes)) }()
	if err != nil {
		return err
	}
	if err := e.Members[0].Kill(); err != nil {
		return err
	}
	var t tally
	_ = parallel(n, n, func(j int) error {
		call, what, bound := func() { _ = locks[j].Release(context.Background()) }, "Unlock", returnTTL
		if j%2 == 1 {
			call, what, bound = func() { _ = nodes[j].Close() }, "Close", 5*time.Second
		} else if l, ok := locks[j].(stayer); ok && j%4 == 2 {
			call, what = func() { _ = l.ReleaseAfter(context.Background(), time.Minute) }, "UnlockAfter"
		}
		began, done := time.Now(), make(chan struct{})
		go func() { defer close(done); call() }()
		await(ctx, done, bound+hung)
		select {
		case <-done:
			d := time.Since(began)
			t.count(d > bound+prompt, d, fmt.Sprintf("%s after its bound", what))
		default:
			t.count(true, time.Since(began), fmt.Sprintf("%s had not returned", what))
		}
		return nil
	})
	s.add(row{name: name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure("returned after")})
	return nil
}
