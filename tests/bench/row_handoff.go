package main

import (
	"context"
	"fmt"
	"time"
)

// A waiter is old once etcd's catch-up loop, which runs every 100 ms, cannot
// have anything left to do for it.
const old = 150 * time.Millisecond

// A holder keeps the lock this long where releasing at once is not the point:
// the next one has then had the time to see that it is next, and nothing of
// the handoff before is still under way.
const briefly = 5 * time.Millisecond

// handoff is the time from the call of Unlock until the next contender has
// returned from Lock. The floor is a bare delete until a watcher that waits
// for it has the event.
func handoff(ctx context.Context, e *env, r *report) error {
	ps, done, err := pools(ctx, e, connections)
	if err != nil {
		return err
	}
	defer done()
	for _, c := range []struct {
		what   string
		rounds int
		scene
	}{
		{"waiters queued long ago", 3, scene{clients: 2, age: old, lines: 15, handoffs: 1, holds: briefly}},
		{"waiters queued long ago", 3, scene{clients: 8, age: old, lines: 2, handoffs: 7, holds: briefly}},
		{"waiters queued long ago", 2, scene{clients: 64, age: old, lines: 1, handoffs: 63, holds: briefly}},
		{"released as soon as held", 2, scene{clients: 64, age: old, lines: 1, handoffs: 63}},
		{"waiters queued 10 ms ago", 25, scene{clients: 2, age: 10 * time.Millisecond, lines: 1, handoffs: 1}},
		{"waiters just queued", 30, scene{clients: 2, lines: 1, handoffs: 1}},
		{"waiters just queued", 6, scene{clients: 8, lines: 1, handoffs: 7}},
		{"waiters just queued", 2, scene{clients: 64, lines: 1, handoffs: 63}},
		{"election, candidates queued long ago", 3, scene{clients: 2, age: old, lines: 15, handoffs: 1, holds: briefly, election: true}},
	} {
		if err := handoffScene(ctx, e, r, "handoff", ps, c.what, e.pick(c.rounds, 1), c.scene); err != nil {
			return err
		}
	}
	return nil
}

// handoff1000 is apart since its sessions are many and take long to open.
func handoff1000(ctx context.Context, e *env, r *report) error {
	ps, done, err := pools(ctx, e, 1000)
	if err != nil {
		return err
	}
	defer done()
	// 1,000 clients that queue at once keep two cores busy for seconds.
	for _, age := range []time.Duration{5 * time.Second, 0} {
		what, holds := "waiters queued long ago", briefly
		if age == 0 {
			what, holds = "waiters just queued", 0
		}
		s := scene{clients: 1000, age: age, lines: 1, handoffs: 60, holds: holds}
		if err := handoffScene(ctx, e, r, "handoff1000", ps, what, 1, s); err != nil {
			return err
		}
	}
	return nil
}

func handoffScene(ctx context.Context, e *env, r *report, row string, ps []*pool, what string, rounds int, s scene) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	var bare sample
	got := make([]sample, len(ps))
	sent := make([]counts, len(ps))
	for round := range rounds {
		for k := range ps {
			k = (k + round) % len(ps)
			if err := f.handoffs(ctx, max(5, 20/rounds), s.rest(), &bare); err != nil {
				return err
			}
			before := ps[k].requests()
			if err := ps[k].handoffs(ctx, e, s, &got[k]); err != nil {
				return err
			}
			for i, n := range ps[k].requests().sub(before) {
				sent[k][i] += n
			}
		}
	}
	b, o, t := bare.median(), got[0].median(), got[1].median()
	note := fmt.Sprintf("p90 %s / %s / %s", number(bare.quantile(0.9)), number(got[0].quantile(0.9)), number(got[1].quantile(0.9)))
	r.add(result{row: row, what: fmt.Sprintf("handoff, %d clients, %s", s.clients, what), where: e.where(), unit: "ms",
		floor: b, ours: o, theirs: t, goal: atMost(ratio(o, b), 1.15, overFloor), note: note, x: s.clients})
	return nil
}

// rest is how long nothing happens before each release of a scene.
func (s scene) rest() time.Duration {
	if s.lines == 1 && s.clients == 2 {
		return s.age
	}
	return s.holds
}
