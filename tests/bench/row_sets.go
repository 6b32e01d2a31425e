package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// sets is LockAll of 1, 8 and 63 names. etcd's own package has nothing to set beside it.
func sets(ctx context.Context, e *env, r *report) error {
	for _, n := range []int{1, 8, 63} {
		if err := freeSet(ctx, e, r, n); err != nil {
			return err
		}
		if err := busySet(ctx, e, r, n); err != nil {
			return err
		}
	}
	return nil
}

// namesOf are n names under one that no earlier measurement has used.
func (e *env) namesOf(n int) (under string, names []string) {
	under = e.name("set")
	for i := range n {
		names = append(names, fmt.Sprintf("%s/%d", under, i))
	}
	return under, names
}

// hourlySessions opens sessions that renew nothing while they are counted.
func hourlySessions(ctx context.Context, e *env, n int) (*pool, error) {
	return newPool(ctx, lib{name: oursLib.name, session: func(ctx context.Context, c *clientv3.Client, _ time.Duration) (session, error) {
		return oursSession(ctx, c, etcdlock.WithTTL(time.Hour))
	}}, e.endpoints, n)
}

func lockAll(s session, names []string) *holdQueue {
	return &holdQueue{take: func(ctx context.Context) (*etcdlock.Hold, error) {
		return etcdlock.LockAll(ctx, s.(ownSession).Session, names...) //nolint:forcetypeassert // of oursLib
	}}
}

// freeSet is a LockAll of names that nobody else wants, and its release. The floor puts and deletes as many keys, in a Txn
// each.
func freeSet(ctx context.Context, e *env, r *report, n int) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	p, err := hourlySessions(ctx, e, 1)
	if err != nil {
		return err
	}
	defer p.close()
	_, names := e.namesOf(n)
	q := lockAll(p.sessions[0], names)
	bare := &side{name: "floor", requests: func() counts { return counts{} }, op: func(ctx context.Context) error { return f.pairs(ctx, n) }}
	ours := &side{name: oursLib.name, requests: p.requests, op: func(ctx context.Context) error {
		if err := q.enter(ctx); err != nil {
			return err
		}
		return q.leave(ctx)
	}}
	if err := interleave(ctx, e, []*side{bare, ours}, e.pick(20, 4)); err != nil {
		return err
	}
	what := fmt.Sprintf("LockAll+Release, %d free names", n)
	b, o := bare.times.median(), ours.times.median()
	r.add(result{row: "sets", what: what, where: e.where(), unit: "ms", floor: b, ours: o, x: n})
	if e.busy {
		return nil
	}
	r.add(result{row: "sets", what: what, where: e.where(), unit: "requests",
		floor: 2, ours: ours.sent.median(), goal: atMost(ours.sent.median(), 2, "requests")})
	r.add(result{row: "sets", what: what, where: e.where(), unit: "commits",
		floor: bare.commits(), ours: ours.commits(), goal: atMost(ours.commits(), 2.1, "commits")})
	return nil
}

// busySet is the time from the release of n names that are held together until somebody who waits for all of them holds. The
// floor deletes as many keys until a watcher of one of them has the event.
func busySet(ctx context.Context, e *env, r *report, n int) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	p, err := hourlySessions(ctx, e, 2)
	if err != nil {
		return err
	}
	defer p.close()
	var bare, ours, sent sample
	for range e.pick(15, 2) {
		for range 3 {
			d, err := f.handoffOf(ctx, n, old)
			if err != nil {
				return err
			}
			bare.addTime(d)
		}
		d, asked, err := p.setHandoff(ctx, e, n)
		if err != nil {
			return err
		}
		ours.addTime(d)
		sent.add(asked)
	}
	what := fmt.Sprintf("handoff of a LockAll of %d names", n)
	b, o := bare.median(), ours.median()
	r.add(result{row: "sets", what: what, where: e.where(), unit: "ms", floor: b, ours: o, goal: atMost(ratio(o, b), 1.15, overFloor), x: n})
	if !e.busy {
		r.add(result{row: "sets", what: what, where: e.where(), unit: "requests before it holds",
			floor: 1, ours: sent.median(), goal: atMost(sent.median(), 1, "requests")})
	}
	return nil
}

// setHandoff is one of them, and what was sent on the way: the release, and what whoever waits asks before it holds.
func (p *pool) setHandoff(ctx context.Context, e *env, n int) (took time.Duration, sent float64, err error) {
	under, names := e.namesOf(n)
	first, next := lockAll(p.sessions[0], names), lockAll(p.sessions[1], names)
	until, err := e.puts(ctx, under)
	if err != nil {
		return 0, 0, err
	}
	if err := first.enter(ctx); err != nil {
		return 0, 0, err
	}
	got := make(chan grab, 1)
	go func() {
		err := next.enter(ctx)
		got <- grab{0, time.Now(), err}
	}()
	if err := until(2 * n); err != nil {
		return 0, 0, err
	}
	pause(ctx, old)
	before, start := p.requests(), time.Now()
	if err := first.leave(ctx); err != nil {
		return 0, 0, err
	}
	g := <-got
	after := p.requests().sub(before)
	if g.err != nil {
		return 0, 0, g.err
	}
	return g.at.Sub(start), float64(after.total() - after[watchCancel]), next.leave(ctx)
}
