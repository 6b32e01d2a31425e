package main

import (
	"context"
	"fmt"
)

// history is whether a lock grows dearer with each time that it was taken: a
// deleted key stays in the index of etcd until the store is compacted, and
// whoever queues reads over it.
func history(ctx context.Context, e *env, r *report) error {
	n := e.pick(5000, 1000)
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	sides := []*side{{name: "floor", op: f.pair, requests: func() counts { return counts{} }}}
	for _, l := range both() {
		c, err := newCounted(ctx, l, e.endpoints)
		if err != nil {
			return err
		}
		defer c.close()
		m := c.session.mutex(e.name("history-" + l.name))
		sides = append(sides, &side{name: l.name, requests: c.count.snapshot, op: func(ctx context.Context) error {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			return m.Unlock(ctx)
		}})
	}
	measure := func() (ms [3]float64, err error) {
		for _, s := range sides {
			s.times = sample{}
		}
		err = interleave(ctx, e, sides, 5)
		for i, s := range sides {
			ms[i] = s.times.median()
		}
		return ms, err
	}
	fresh, err := measure()
	if err != nil {
		return err
	}
	for range n {
		for _, s := range sides {
			if err := s.op(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	worn, err := measure()
	if err != nil {
		return err
	}
	r.add(result{row: "history", what: fmt.Sprintf("Lock+Unlock, taken %d times before", n), where: e.where(), unit: "ms",
		floor: worn[0], ours: worn[1], theirs: worn[2], goal: atMost(ratio(ratio(worn[1], worn[0]), ratio(fresh[1], fresh[0])), 1.15, "÷ the same when new, both ÷ floor"),
		note: fmt.Sprintf("when new: %s / %s / %s", number(fresh[0]), number(fresh[1]), number(fresh[2]))})
	return nil
}
