package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// permits counts what one permit that goes from hand to hand costs, with more
// and more sessions that wait for one of four: every one of them hears of each
// release, and nobody asks anything. Times are beside the point here.
func permits(ctx context.Context, e *env, r *report) error {
	for _, waiting := range []int{10, 100, 1000} {
		if waiting > 100 && e.short {
			continue
		}
		if err := permitsOf(ctx, e, r, waiting); err != nil {
			return err
		}
	}
	return nil
}

func permitsOf(ctx context.Context, e *env, r *report, waiting int) error {
	const n, handoffs = 4, 20
	hourly := lib{name: oursLib.name, session: func(ctx context.Context, c *clientv3.Client, _ time.Duration) (session, error) {
		return oursSession(ctx, c, etcdlock.WithTTL(time.Hour)) // no renewal and no list falls into what is counted
	}}
	p, err := newPool(ctx, hourly, e.endpoints, waiting)
	if err != nil {
		return err
	}
	defer p.close()
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := etcdlock.NewSession(ctx, c, etcdlock.WithTTL(sessionTTL))
	if err != nil {
		return err
	}
	defer s.Close()
	name := e.name("permits")
	first := etcdlock.NewSemaphore(s, name, n)
	var held []*etcdlock.Hold
	for range n {
		h, err := first.Acquire(ctx)
		if err != nil {
			return err
		}
		held = append(held, h)
	}
	seen, err := e.puts(ctx, name)
	if err != nil {
		return err
	}
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	got, left := make(chan *etcdlock.Hold), make(chan struct{})
	for _, s := range p.sessions {
		go func() {
			defer func() { left <- struct{}{} }()
			if h, err := etcdlock.NewSemaphore(s.(ownSession).Session, name, n).Acquire(wctx); err == nil { //nolint:forcetypeassert // of oursLib
				got <- h
			}
		}()
	}
	if err := seen(waiting); err != nil {
		return err
	}
	before := p.requests()
	for quiet := 0; quiet < 10 && ctx.Err() == nil; quiet++ { // until their watches are open
		pause(ctx, 200*time.Millisecond)
		if now := p.requests(); now != before {
			before, quiet = now, -1
		}
	}
	was := p.received()
	for i := range min(handoffs, waiting) {
		if err := held[i].Release(ctx); err != nil {
			return err
		}
		select {
		case h := <-got:
			held = append(held, h)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	pause(ctx, time.Second) // the last event reaches everybody
	sent, events := p.requests().sub(before), p.received().sub(was)
	rounds := float64(min(handoffs, waiting))
	what := fmt.Sprintf("a permit of 4 goes on, %d sessions wait", waiting)
	// All but the first come from sessions of the pool, so their releases are among what these sent.
	asked := float64(sent.total()-sent[txnWrite]-sent[watchCancel]-sent[keepAlive]) / rounds
	r.add(result{row: "permits", what: what, where: e.where(), unit: "requests of those who wait", ours: asked,
		goal: atMost(asked, 0, "requests"), note: "all: " + sent.String(), x: waiting})
	r.add(result{row: "permits", what: what, where: e.where(), unit: "events", ours: float64(events.events) / rounds})
	r.add(result{row: "permits", what: what, where: e.where(), unit: "bytes to each", ours: float64(events.bytes) / float64(max(events.events, 1))})
	for _, h := range held[min(handoffs, waiting):] {
		_ = h.Release(ctx)
	}
	cancel()
	for range p.sessions {
		for done := false; !done; {
			select {
			case h := <-got: // whom the last releases let in
				_ = h.Release(ctx)
			case <-left:
				done = true
			}
		}
	}
	return ctx.Err()
}
