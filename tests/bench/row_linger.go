package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// linger is the loop of one goroutine that locks and unlocks with nobody
// beside it, and what a contender waits who comes by every second.
func linger(ctx context.Context, e *env, r *report) error {
	l := lib{name: "etcdlock lingering", session: func(ctx context.Context, c *clientv3.Client, ttl time.Duration) (session, error) {
		return lingering(ctx, c, ttl, 5*time.Second)
	}}
	keep, err := newCounted(ctx, l, e.endpoints)
	if err != nil {
		return err
	}
	defer keep.close()
	theirs, err := newCounted(ctx, concurrencyLib, e.endpoints)
	if err != nil {
		return err
	}
	defer theirs.close()
	d := time.Duration(e.pick(1000, 300)) * time.Millisecond
	var o, t sample
	for range 3 {
		n, err := spin(ctx, keep.session.mutex(e.name("linger")), d)
		if err != nil {
			return fmt.Errorf("lingering: %w", err)
		}
		o.add(n)
		if n, err = spin(ctx, theirs.session.mutex(e.name("linger")), d); err != nil {
			return fmt.Errorf("concurrency: %w", err)
		}
		t.add(n)
	}
	r.add(result{row: "linger", what: "one goroutine's Lock/Unlock loop, lingering", where: e.where(), unit: "/s",
		ours: o.median(), theirs: t.median(), goal: atLeast(ratio(o.median(), t.median()), 500, overTheirs)})
	return lingerContended(ctx, e, r, keep)
}

// lingerContended lets a contender from elsewhere come once a second while
// the loop spins. The loop's section is empty, so what the contender waits is
// all handoff; the normal one is measured in between.
func lingerContended(ctx context.Context, e *env, r *report, keep *counted) error {
	ps, done, err := pools(ctx, e, 2)
	if err != nil {
		return err
	}
	defer done()
	name := e.name("linger")
	m, other := keep.session.mutex(name), ps[0].sessions[0].mutex(name)
	wctx, quit := context.WithCancel(ctx)
	loop := make(chan error, 1)
	go func() {
		for wctx.Err() == nil {
			if err := m.Lock(wctx); err != nil {
				break
			}
			if err := unlock(m); err != nil {
				loop <- err
				return
			}
		}
		loop <- nil
	}()
	var waits, normal sample
	for range e.pick(10, 3) {
		pause(ctx, time.Second)
		start := time.Now()
		if err := other.Lock(ctx); err != nil {
			quit()
			<-loop
			return err
		}
		waits.addTime(time.Since(start))
		if err := unlock(other); err != nil {
			quit()
			<-loop
			return err
		}
		if err := lockBehind(ctx, e, ps[0], &normal); err != nil {
			quit()
			<-loop
			return err
		}
	}
	quit()
	if err := <-loop; err != nil {
		return err
	}
	o, n := waits.median(), normal.median()
	r.add(result{row: "linger", what: "a contender once a second, from its Lock until it holds", where: e.where(), unit: "ms",
		floor: n, ours: o, goal: atMost(ratio(o, n), 1.5, "lingering / normal"),
		note: "floor: the same without lingering, the holder unlocking as soon as the contender has queued; worst " + number(waits.quantile(1))})
	return nil
}

// lockBehind is the same wait without lingering: Lock behind a holder that
// unlocks the moment the contender's ticket is there.
func lockBehind(ctx context.Context, e *env, p *pool, into *sample) error {
	name := e.name("linger")
	h, w := p.sessions[0].mutex(name), p.sessions[1].mutex(name)
	if err := h.Lock(ctx); err != nil {
		return err
	}
	seen, err := e.puts(ctx, name)
	if err != nil {
		return err
	}
	freed := make(chan error, 1)
	start := time.Now()
	go func() {
		err := seen(1)
		if uerr := unlock(h); err == nil {
			err = uerr
		}
		freed <- err
	}()
	if err := w.Lock(ctx); err != nil {
		return err
	}
	into.addTime(time.Since(start))
	if err := <-freed; err != nil {
		return err
	}
	return unlock(w)
}

func spin(ctx context.Context, m mutex, d time.Duration) (float64, error) {
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		if err := m.Lock(ctx); err != nil {
			return 0, err
		}
		if err := m.Unlock(ctx); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
