package main

import (
	"context"
	"fmt"
)

// uncontended is a lock that nobody else wants, taken and given back; and an
// election with one candidate. The floor is a leased put and a delete.
func uncontended(ctx context.Context, e *env, r *report) error {
	for _, elect := range []bool{false, true} {
		if err := uncontendedQueue(ctx, e, r, elect); err != nil {
			return err
		}
	}
	return nil
}

func uncontendedQueue(ctx context.Context, e *env, r *report, elect bool) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	sides := []*side{{name: "floor", op: f.pair, requests: func() counts { return counts{} }}}
	what := "Lock+Unlock"
	if elect {
		what = "Campaign+Resign"
	}
	for _, l := range both() {
		c, err := newCounted(ctx, l, e.endpoints)
		if err != nil {
			return err
		}
		defer c.close()
		name := e.name(l.name)
		var q queue = mutexQueue{c.session.mutex(name)}
		if elect {
			q = electionQueue{c.session.election(name)}
		}
		sides = append(sides, &side{name: l.name, requests: c.count.snapshot, op: func(ctx context.Context) error {
			if err := q.enter(ctx); err != nil {
				return err
			}
			return q.leave(ctx)
		}})
	}
	if err := interleave(ctx, e, sides, e.pick(20, 4)); err != nil {
		return err
	}
	bare, ours, theirs := sides[0], sides[1], sides[2]
	b, o, t := bare.times.median(), ours.times.median(), theirs.times.median()
	r.add(result{row: "uncontended", what: what + ", uncontended", where: e.where(), unit: "ms",
		floor: b, ours: o, theirs: t, goal: atMost(ratio(o, b), 1.05, overFloor)})
	if e.busy {
		return nil // the counters would show the unrelated writes as well
	}
	r.add(result{row: "uncontended", what: what + ", uncontended", where: e.where(), unit: "requests",
		floor: 2, ours: ours.sent.median(), theirs: theirs.sent.median(),
		goal: atMost(ours.sent.median(), 2, "requests")})
	// A renewal or a snapshot may add an entry to a whole run; a tenth of a
	// commit per operation could not hide one that every operation makes.
	r.add(result{row: "uncontended", what: what + ", uncontended", where: e.where(), unit: "commits",
		floor: bare.commits(), ours: ours.commits(), theirs: theirs.commits(),
		goal: atMost(ours.commits(), 2.1, "commits"),
		note: fmt.Sprintf("fsyncs %s / %s / %s", number(bare.fsyncs()), number(ours.fsyncs()), number(theirs.fsyncs()))})
	return nil
}
