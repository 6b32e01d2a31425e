//go:build unix

package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// patient is one trial: a session whose waiter, observer and next Lock must
// outlive the fault.
type patient struct {
	n, b   *node // the session, and the one that holds and leads
	w, e   lock  // what b holds, and where it leads
	name   string
	waited chan error    // the waiter's Lock
	seen   chan struct{} // the observer saw the second leader
	stop   context.CancelFunc
}

func (e *env) heal(ctx context.Context, s *suite, sc scenario, i impl) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if sc.setUp != nil {
		if err := sc.setUp(ctx, e); err != nil {
			return err
		}
	}
	all := make([]*patient, s.pick(5, 2))
	var nodes []*node
	defer func() {
		if sc.after != nil {
			sc.after(e)
		}
		for _, p := range all {
			if p != nil {
				p.stop()
			}
		}
		closeAll(nodes)
	}()
	for j := range all {
		p := &patient{name: e.prefix("heal"), waited: make(chan error, 1), seen: make(chan struct{})}
		for _, n := range []**node{&p.n, &p.b} {
			var err error
			if *n, err = e.node(ctx, i, healTTL); err != nil {
				return err
			}
			nodes = append(nodes, *n)
		}
		if err := p.begin(ctx); err != nil {
			return err
		}
		all[j] = p
	}
	var own []*node
	for _, p := range all {
		own = append(own, p.n)
	}
	if err := sc.fault(ctx, s, e, own); err != nil {
		return err
	}

	var mu sync.Mutex
	ok := map[string]int{}
	var worst time.Duration
	began := time.Now()
	good := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		ok[what]++
		worst = max(worst, time.Since(began))
	}
	err := parallel(len(all), len(all), func(j int) error { return e.checks(ctx, i, all[j], good) })
	n := len(all)
	bad := 3*n - ok["lock"] - ok["waiter"] - ok["observer"]
	s.add(row{name: sc.name, impl: i.Name(), trials: n, violations: bad, figure: fmt.Sprintf(
		"Lock %d, waiter %d, observer %d of %d; within %s", ok["lock"], ok["waiter"], ok["observer"], n, ms(worst))})
	return err
}

func (p *patient) begin(ctx context.Context) error {
	wctx, stop := context.WithCancel(ctx)
	p.stop = stop
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	p.w, p.e = p.b.Rival(p.name+"/w"), p.b.Election(p.name+"/e", "first")
	for _, l := range []lock{p.w, p.e} {
		if err := p.b.acquire(limited, l); err != nil {
			stop()
			return err
		}
	}
	if err := p.n.acquire(limited, p.n.Mutex(p.name+"/held")); err != nil {
		stop()
		return err
	}
	go func() { p.waited <- p.n.Mutex(p.name + "/w").Acquire(wctx) }()
	first := make(chan struct{})
	leaders := p.n.Observe(wctx, p.name+"/e")
	go func() {
		was, now := false, false
		for v := range leaders {
			if v == "first" && !was {
				was = true
				close(first)
			}
			if v == "second" && !now {
				now = true
				close(p.seen)
			}
		}
	}()
	select {
	case <-first:
	case <-limited.Done():
		stop()
		return fmt.Errorf("the observer saw no first leader: %w", limited.Err())
	}
	return pause(limited, 100*time.Millisecond) // the waiter is queued
}

func (e *env) checks(ctx context.Context, i impl, p *patient, good func(string)) error {
	fresh, err := e.node(ctx, i, healTTL)
	if err != nil {
		return err
	}
	defer fresh.close()
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		l := p.n.Mutex(p.name + "/new")
		if p.n.acquire(ctx, l) != nil {
			return
		}
		if p.n.linger == 0 || p.n.givesWay(ctx, l, fresh.Mutex(p.name+"/new")) {
			good("lock")
		}
	})
	wg.Go(func() {
		// A session that lost its lease has nothing to release; then the waiter
		// has its turn anyway.
		done, cancel := context.WithTimeout(ctx, 2*time.Second)
		_ = p.w.Release(done)
		cancel()
		select {
		case err := <-p.waited:
			if err == nil {
				good("waiter")
			}
		case <-ctx.Done():
		}
	})
	wg.Go(func() {
		done, cancel := context.WithTimeout(ctx, 2*time.Second)
		_ = p.e.Release(done)
		cancel()
		if fresh.Election(p.name+"/e", "second").Acquire(ctx) != nil {
			return
		}
		select {
		case <-p.seen:
			good("observer")
		case <-ctx.Done():
		}
	})
	wg.Wait()
	return nil
}
