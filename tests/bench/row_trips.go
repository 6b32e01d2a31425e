package main

import (
	"context"
	"fmt"
	"time"
)

// trips measures in round trips: every endpoint is behind a proxy that holds
// each packet back for a fixed time, so long that little else counts: a commit
// is some 2 % of the 50 ms.
func trips(ctx context.Context, e *env, r *report) error {
	if err := e.delay(25 * time.Millisecond); err != nil {
		return err
	}
	f, err := newFloor(ctx, e, e.delayed)
	if err != nil {
		return err
	}
	defer f.stop()
	var ps []*pool
	for _, l := range both() {
		p, err := newPool(ctx, l, e.delayed, 8)
		if err != nil {
			return err
		}
		defer p.close()
		ps = append(ps, p)
	}
	if err := tripsAlone(ctx, e, r, f, ps); err != nil {
		return err
	}
	for _, c := range []struct {
		what  string
		bound float64
		scene
	}{
		{"handoff, 2 clients, waiter queued long ago", 1.1, scene{clients: 2, age: old, lines: 8, handoffs: 1}},
		{"handoff down a queue of 8, each to its successor", 1.1, scene{clients: 8, age: old, lines: 2, handoffs: 7}},
		{"handoff, 2 clients, waiter just queued", 0, scene{clients: 2, lines: 1, handoffs: 1}},
		{"handoff of an election", 1.1, scene{clients: 2, age: old, lines: 8, handoffs: 1, election: true}},
		{"handoff after the one in between gave up", 2.1, scene{clients: 3, age: old, lines: 8, handoffs: 1, quitter: true}},
	} {
		if c.age == 0 {
			c.lines = 8
		}
		var bare sample
		got := make([]sample, len(ps))
		for k, p := range ps {
			if err := f.handoffs(ctx, e.pick(8, 4), 0, &bare); err != nil {
				return err
			}
			if err := p.handoffs(ctx, e, c.scene, &got[k]); err != nil {
				return err
			}
		}
		e.trips(r, c.what, c.bound, bare, got[0], got[1])
	}
	return nil
}

// trips adds a result that was measured behind the delay.
func (e *env) trips(r *report, what string, bound float64, bare, ours, theirs sample) {
	rtt := ms(e.rtt)
	o := ours.median() / rtt
	var g goal
	if bound > 0 {
		g = atMost(o, bound, "round trips")
	}
	r.add(result{row: "trips", what: what, where: e.where(), unit: "round trips",
		floor: bare.median() / rtt, ours: o, theirs: theirs.median() / rtt, goal: g})
}

// tripsAlone is what takes no second contender.
func tripsAlone(ctx context.Context, e *env, r *report, f *floor, ps []*pool) error {
	type op struct {
		what  string
		bound float64
		set   func(ctx context.Context, q queue) error
		run   func(ctx context.Context, q queue) error
		end   func(ctx context.Context, q queue) error
		elect bool
	}
	enter := func(ctx context.Context, q queue) error { return q.enter(ctx) }
	leave := func(ctx context.Context, q queue) error { return q.leave(ctx) }
	none := func(context.Context, queue) error { return nil }
	var bare sample
	for range e.pick(8, 4) {
		start := time.Now()
		if err := f.pair(ctx); err != nil {
			return err
		}
		bare.addTime(time.Since(start) / 2)
	}
	for _, o := range []op{
		{"Lock, uncontended", 1.1, none, enter, leave, false},
		{"Unlock, uncontended", 1.1, enter, leave, none, false},
		{"Campaign, uncontended", 1.1, none, enter, leave, true},
		{"Resign, uncontended", 1.1, enter, leave, none, true},
	} {
		got := make([]sample, len(ps))
		for range e.pick(8, 4) {
			for k, p := range ps {
				q := p.places(e.name("trips"), scene{clients: 1, election: o.elect})[0]
				if err := o.set(ctx, q); err != nil {
					return err
				}
				start := time.Now()
				if err := o.run(ctx, q); err != nil {
					return err
				}
				got[k].addTime(time.Since(start))
				if err := o.end(ctx, q); err != nil {
					return err
				}
			}
		}
		e.trips(r, o.what, o.bound, bare, got[0], got[1])
	}
	return tripsTryLock(ctx, e, r, bare, ps)
}

func tripsTryLock(ctx context.Context, e *env, r *report, bare sample, ps []*pool) error {
	name := e.name("trips")
	w, err := newCrowd(ctx, e.observer, name, 2)
	if err != nil {
		return err
	}
	defer w.leave(context.WithoutCancel(ctx))
	got := make([]sample, len(ps))
	for range e.pick(8, 4) {
		for k, p := range ps {
			start := time.Now()
			if err := p.sessions[0].mutex(name).TryLock(ctx); !isLocked(err) {
				return fmt.Errorf("%s: TryLock on a busy lock: %w", p.lib.name, err)
			}
			got[k].addTime(time.Since(start))
		}
	}
	e.trips(r, "TryLock on a busy lock", 1.1, bare, got[0], got[1])
	return nil
}
