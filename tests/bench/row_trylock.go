package main

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tryLock asks for a lock that is held, with shorter and longer queues. The
// floor is one Txn that finds the holder's ticket there and reads it.
func tryLock(ctx context.Context, e *env, r *report) error {
	for _, n := range []int{2, 100, 5000} {
		if err := tryLockBehind(ctx, e, r, n); err != nil {
			return err
		}
	}
	return nil
}

func tryLockBehind(ctx context.Context, e *env, r *report, tickets int) error {
	name := e.name("trylock")
	w, err := newCrowd(ctx, e.observer, name, tickets)
	if err != nil {
		return err
	}
	defer w.leave(context.WithoutCancel(ctx))
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	first := w.keys[0]
	sides := []*side{{name: "floor", requests: func() counts { return counts{} }, op: func(ctx context.Context) error {
		gone := clientv3.Compare(clientv3.CreateRevision(first), "=", 0)
		_, err := c.Txn(ctx).If(gone).Then(clientv3.OpPut(first, "")).Else(clientv3.OpGet(first)).Commit()
		return err
	}}}
	for _, l := range both() {
		c, err := newCounted(ctx, l, e.endpoints)
		if err != nil {
			return err
		}
		defer c.close()
		m := c.session.mutex(name)
		sides = append(sides, &side{name: l.name, requests: c.count.snapshot, op: func(ctx context.Context) error {
			if err := m.TryLock(ctx); err == nil {
				return errors.New("took a lock that is held")
			} else if !isLocked(err) {
				return err
			}
			return nil
		}})
	}
	if err := interleave(ctx, e, sides, e.pick(10, 3)); err != nil {
		return err
	}
	bare, ours, theirs := sides[0], sides[1], sides[2]
	what := fmt.Sprintf("TryLock on a busy lock, %d tickets", tickets)
	b, o, t := bare.times.median(), ours.times.median(), theirs.times.median()
	r.add(result{row: "trylock", what: what, where: e.where(), unit: "ms", floor: b, ours: o, theirs: t})
	if e.busy {
		return nil
	}
	r.add(result{row: "trylock", what: what, where: e.where(), unit: "requests",
		floor: 1, ours: ours.sent.median(), theirs: theirs.sent.median(),
		goal: atMost(ours.sent.median(), 1, "requests")})
	r.add(result{row: "trylock", what: what, where: e.where(), unit: "revisions",
		floor: bare.revisions(), ours: ours.revisions(), theirs: theirs.revisions(),
		goal: atMost(ours.revisions(), 0, "revisions"),
		note: fmt.Sprintf("raft entries %s / %s / %s", number(bare.commits()), number(ours.commits()), number(theirs.commits()))})
	return nil
}
