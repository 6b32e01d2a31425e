package main

import (
	"context"
	"fmt"
	"time"
)

// split takes a handoff apart by where its time goes: until the request is
// with gRPC, from there until the event comes up from gRPC (the network and
// etcd, which no client can shorten), and until Lock has returned.
func split(ctx context.Context, e *env, r *report) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	var parts [3][3]sample // before, between, after; floor, ours, theirs
	took := func(side int, start, end time.Duration, from, to *counter) {
		sent, event := time.Duration(from.sentTxn.Load()), time.Duration(to.lastEvent.Load())
		parts[0][side].addTime(sent - start)
		parts[1][side].addTime(event - sent)
		parts[2][side].addTime(end - event)
	}
	ps, done, err := pools(ctx, e, 2)
	if err != nil {
		return err
	}
	defer done()
	for range e.pick(60, 15) {
		if _, err := f.a.Put(ctx, f.key, "x"); err != nil {
			return err
		}
		pause(ctx, 20*time.Millisecond)
		start := time.Since(epoch)
		if _, err := f.a.Delete(ctx, f.key); err != nil {
			return err
		}
		took(0, start, (<-f.gone).Sub(epoch), f.na, f.nb)
		for k, p := range ps {
			name := e.name("split")
			l, err := newLine(ctx, e, name, p.places(name, scene{clients: 2}), scene{clients: 2})
			if err != nil {
				return fmt.Errorf("%s: %w", p.lib.name, err)
			}
			pause(ctx, old)
			start := time.Since(epoch)
			d, err := l.handoff(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", p.lib.name, err)
			}
			took(k+1, start, start+d, p.counters[0], p.counters[1])
			if err := l.disband(ctx); err != nil {
				return err
			}
		}
	}
	for i, what := range []string{"until the deletion is sent", "until the event is there", "until Lock has returned"} {
		r.add(result{row: "split", what: "a handoff's time, " + what, where: e.where(), unit: "ms",
			floor: parts[i][0].median(), ours: parts[i][1].median(), theirs: parts[i][2].median()})
	}
	return nil
}
