package main

import (
	"context"
	"fmt"
	"time"
)

// flat is whether the cost grows with the queue: 5,000 tickets, of which the
// first forty wait for real and the others are put by the benchmark.
func flat(ctx context.Context, e *env, r *report) error {
	if err := flatHandoff(ctx, e, r); err != nil {
		return err
	}
	return flatEnqueue(ctx, e, r)
}

func flatHandoff(ctx context.Context, e *env, r *report) error {
	const real = 40
	ps, done, err := pools(ctx, e, real)
	if err != nil {
		return err
	}
	defer done()
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	var bare sample
	got := make([]map[int]*sample, len(ps))
	for k := range ps {
		got[k] = map[int]*sample{2: {}, 5000: {}}
	}
	for range e.pick(2, 1) {
		for k, p := range ps {
			if err := f.handoffs(ctx, 20, briefly, &bare); err != nil {
				return err
			}
			if err := p.handoffs(ctx, e, scene{clients: 2, age: old, lines: 20, handoffs: 1, holds: briefly}, got[k][2]); err != nil {
				return err
			}
			s := scene{clients: real, extra: 5000 - real, age: old, lines: 1, handoffs: real - 1, holds: briefly}
			if err := p.handoffs(ctx, e, s, got[k][5000]); err != nil {
				return err
			}
		}
	}
	b, o, t := bare.median(), got[0], got[1]
	r.add(result{row: "flat", what: "handoff, 5,000 in the queue", where: e.where(), unit: "ms",
		floor: b, ours: o[5000].median(), theirs: t[5000].median(), x: 5000,
		goal: atMost(ratio(o[5000].median(), o[2].median()), 1.5, "5,000 / 2"),
		note: fmt.Sprintf("with 2: %s / %s", number(o[2].median()), number(t[2].median()))})
	return nil
}

// flatEnqueue is the time from the call of Lock until the Txn that queues has
// been answered; what follows it (the watch, and reads) is waited on anyway.
func flatEnqueue(ctx context.Context, e *env, r *report) error {
	libs := both()
	got := make([]map[int]*sample, len(libs))
	cs := make([]*counted, len(libs))
	for k, l := range libs {
		c, err := newCounted(ctx, l, e.endpoints)
		if err != nil {
			return err
		}
		defer c.close()
		cs[k], got[k] = c, map[int]*sample{}
	}
	var bare sample
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	for _, ahead := range []int{0, 1, 4999} {
		name := e.name("enqueue")
		w, err := newCrowd(ctx, e.observer, name, ahead)
		if err != nil {
			return err
		}
		for range e.pick(30, 5) {
			start := time.Now()
			if err := f.pair(ctx); err != nil {
				return err
			}
			bare.addTime(time.Since(start) / 2)
			for k, c := range cs {
				if got[k][ahead] == nil {
					got[k][ahead] = &sample{}
				}
				d, err := enqueue(ctx, e, c, name, ahead)
				if err != nil {
					return fmt.Errorf("%s: %w", libs[k].name, err)
				}
				got[k][ahead].addTime(d)
			}
		}
		if err := w.leave(ctx); err != nil {
			return err
		}
	}
	o, t := got[0], got[1]
	r.add(result{row: "flat", what: "enqueueing the first", where: e.where(), unit: "ms",
		floor: bare.median(), ours: o[0].median(), theirs: t[0].median()})
	r.add(result{row: "flat", what: "enqueueing the 5,000th", where: e.where(), unit: "ms",
		floor: bare.median(), ours: o[4999].median(), theirs: t[4999].median(),
		goal: atMost(ratio(o[4999].median(), o[0].median()), 4, "5,000th / first"),
		note: fmt.Sprintf("the second: %s / %s", number(o[1].median()), number(t[1].median()))})
	return nil
}

func enqueue(ctx context.Context, e *env, c *counted, name string, ahead int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	m := c.session.mutex(name)
	start := time.Since(epoch)
	if ahead == 0 {
		if err := m.Lock(ctx); err != nil {
			return 0, err
		}
		d := time.Duration(c.count.lastTxn.Load()) - start
		return d, m.Unlock(ctx)
	}
	seen, err := e.puts(ctx, name)
	if err != nil {
		return 0, err
	}
	wctx, quit := context.WithCancel(ctx)
	done := make(chan error, 1)
	start = time.Since(epoch)
	go func() { done <- m.Lock(wctx) }()
	if err := seen(1); err != nil {
		quit()
		return 0, err
	}
	// The ticket can be seen before its own client has the answer.
	for c.count.lastTxn.Load() < int64(start) {
		pause(ctx, 200*time.Microsecond)
		if ctx.Err() != nil {
			quit()
			return 0, ctx.Err()
		}
	}
	d := time.Duration(c.count.lastTxn.Load()) - start
	quit()
	if err := <-done; err == nil {
		return 0, fmt.Errorf("took a lock that is held")
	}
	return d, nil
}
