//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// interference is what somebody does behind the lock's back.
type interference struct {
	name  string
	short bool
	// ends: the hold must end, within limit; otherwise it must go on.
	ends  bool
	limit time.Duration
	do    func(context.Context, *env, []*queue) error
}

// queue is one trial: a holder and two waiters, each a session of its own.
type queue struct {
	name string
	n    [3]*node
	l    [3]lock
	key  string
	got  [3]chan error
	swap bool
}

func (e *env) perKey(f func(context.Context, *queue) error) func(context.Context, *env, []*queue) error {
	return func(ctx context.Context, _ *env, all []*queue) error {
		return parallel(len(all), len(all), func(j int) error { return f(ctx, all[j]) })
	}
}

func interferences(e *env) []interference {
	noticed := interval + slack
	// The watch that tells of a lost lease begins a twentieth of the TTL after a
	// session's first hold, so as to cost short holds nothing.
	return []interference{
		{name: "holder's ticket deleted", short: true, ends: true, limit: noticed, do: e.perKey(func(ctx context.Context, q *queue) error {
			_, err := e.cli.Delete(ctx, q.key)
			return err
		})},
		{name: "first waiter's ticket deleted", do: e.perKey(func(ctx context.Context, q *queue) error {
			r, err := e.cli.Get(ctx, q.name+"/", append(clientv3.WithFirstCreate(), clientv3.WithLimit(2))...)
			if err != nil {
				return err
			}
			_, err = e.cli.Delete(ctx, string(r.Kvs[1].Key))
			return err
		})},
		{name: "whole prefix deleted", ends: true, limit: noticed, do: e.perKey(func(ctx context.Context, q *queue) error {
			_, err := e.cli.Delete(ctx, q.name+"/", clientv3.WithPrefix())
			return err
		})},
		{name: "holder's lease revoked", short: true, ends: true, limit: ghostTTL/20 + slack, do: e.perKey(func(ctx context.Context, q *queue) error {
			_, err := e.cli.Revoke(ctx, q.n[0].Lease())
			return err
		})},
		{name: "first waiter's lease revoked", do: e.perKey(func(ctx context.Context, q *queue) error {
			_, err := e.cli.Revoke(ctx, q.n[1].Lease())
			return err
		})},
		{name: "etcd restored empty", ends: true, limit: noticed, do: func(ctx context.Context, e *env, _ []*queue) error {
			return e.Empty(ctx)
		}},
		{name: "etcd set back to an older copy", ends: true, limit: noticed, do: func(ctx context.Context, e *env, _ []*queue) error {
			return e.Load(ctx)
		}},
	}
}

func runOutOfBand(ctx context.Context, s *suite) error {
	return s.eachImpl(ctx, cluster.Options{}, func(ctx context.Context, e *env, i impl) error {
		if err := e.Save(ctx); err != nil {
			return err
		}
		for _, x := range interferences(e) {
			if !s.want(x.name) || s.short && !x.short {
				continue
			}
			if err := e.interfere(ctx, s, x, i); err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
		}
		if i.Linger() == 0 {
			return nil
		}
		return e.idleTickets(ctx, s, i)
	})
}

func (e *env) interfere(ctx context.Context, s *suite, x interference, i impl) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := make([]*queue, s.pick(20, 5))
	var nodes []*node
	defer func() { closeAll(nodes) }()
	// All sessions first: setting up a hundred clients takes a while.
	for j := range all {
		all[j] = &queue{name: e.prefix("outofband"), swap: j%2 == 1}
		for k := range all[j].n {
			n, err := e.node(ctx, i, ghostTTL)
			if err != nil {
				return err
			}
			all[j].n[k] = n
			nodes = append(nodes, n)
		}
	}
	if err := parallel(len(all), len(all), func(j int) error { return all[j].form(ctx, e) }); err != nil {
		return err
	}
	done := make([]<-chan struct{}, len(all))
	for j, q := range all {
		done[j] = q.l[0].Done()
	}
	if err := x.do(ctx, e, all); err != nil {
		return err
	}
	var t tally
	began := time.Now() // a restored server serves by now
	err := parallel(len(all), len(all), func(j int) error {
		bad, d := all[j].after(ctx, x, done[j], began)
		t.count(bad != "", d, bad)
		return nil
	})
	what := "hold ended within"
	if !x.ends {
		what = "next holder after the release within"
	}
	s.add(row{name: x.name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure(what)})
	return err
}

// pick is what the k-th takes: the holder, or in every other trial the first waiter, what the side is about.
func (q *queue) pick(k int) lock {
	if k == 0 && !q.swap || k == 1 && q.swap {
		return q.n[k].Mutex(q.name)
	}
	return q.n[k].Rival(q.name)
}

// form lets one hold and two queue, in this order.
func (q *queue) form(ctx context.Context, e *env) error {
	for k := range q.n {
		q.l[k], q.got[k] = q.pick(k), make(chan error, 1)
		if k == 0 {
			if err := q.n[k].acquire(ctx, q.l[k]); err != nil {
				return err
			}
			q.key = q.l[k].Key()
			continue
		}
		go func() { q.got[k] <- q.l[k].Acquire(ctx) }()
		if _, err := e.waitKeys(ctx, q.name+"/", int64(k+1), 10*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// after checks what the interference left, and says what is wrong, if anything.
func (q *queue) after(ctx context.Context, x interference, done <-chan struct{}, began time.Time) (string, time.Duration) {
	var d time.Duration
	if x.ends {
		await(ctx, done, x.limit)
		d = time.Since(began)
		if q.l[0].Held() {
			return "holds did not end", d
		}
	} else {
		// Its own place in the queue is gone: the waiter must have queued again
		// within one renewal interval, and must not hold yet.
		await(ctx, done, interval+slack)
		switch {
		case !q.l[0].Held():
			return "holds ended for nothing", d
		case len(q.got[1])+len(q.got[2]) > 0:
			return "waiters returned while another held", d
		}
		released := time.Now()
		limited, cancel := context.WithTimeout(ctx, interval)
		err := q.l[0].Release(limited)
		cancel()
		if err != nil {
			return "holds could not be released", d
		}
		began = released
	}
	// Both waiters have their turns, one after the other.
	for turn := range 2 {
		limited, cancel := context.WithTimeout(ctx, 2*interval)
		k, err := q.next(limited)
		cancel()
		if err != nil {
			return "waiters without their turn", d
		}
		if turn == 0 && !x.ends {
			d = time.Since(began)
		}
		// Where its own ticket went together with its predecessor's, a grant may
		// have come first and its end at once after it (docs/safety.md, 6): the
		// caller, at work for a moment, was told, and locks again.
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return "turns cut off", d
		}
		if !q.l[k].Held() {
			limited, cancel := context.WithTimeout(ctx, 2*interval)
			if q.l[k].Release(limited) == nil {
				cancel()
				return "lost holds that Unlock called fine", d
			}
			again := k // k changes, perhaps before the goroutine runs
			go func() { q.got[again] <- q.l[again].Acquire(ctx) }()
			k, err = q.next(limited)
			cancel()
			if err != nil {
				return "waiters without their turn", d
			}
		}
		if other := 3 - k; turn == 0 && len(q.got[other]) > 0 && q.l[other].Held() && q.l[k].Held() {
			return "keys with two holders", d
		}
		limited, cancel = context.WithTimeout(ctx, interval)
		err = q.l[k].Release(limited)
		cancel()
		if err != nil {
			return "waiters whose hold was lost", d
		}
	}
	return "", d
}

func (q *queue) next(ctx context.Context) (int, error) {
	select {
	case err := <-q.got[1]:
		return 1, err
	case err := <-q.got[2]:
		return 2, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
