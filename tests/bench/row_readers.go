package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// readers is a read-write lock: ours beside the one among etcd's recipes.
func readers(ctx context.Context, e *env, r *report) error {
	if err := freeReader(ctx, e, r); err != nil {
		return err
	}
	ps, done, err := pools(ctx, e, 101)
	if err != nil {
		return err
	}
	defer done()
	for _, m := range []int{1, 8, 64} {
		what := fmt.Sprintf("a writer's release to %d readers in as many processes", m)
		if err := phase(ctx, e, r, ps, what, m, func(ctx context.Context, p *pool, name string) (time.Duration, error) {
			return p.toReaders(ctx, e, name, m)
		}); err != nil {
			return err
		}
	}
	for _, k := range []int{1, 8, 100} {
		for _, random := range []bool{false, true} {
			what := fmt.Sprintf("the last of %d readers to a writer, first come, first gone", k)
			if random && k == 1 {
				continue
			} else if random {
				what = fmt.Sprintf("the last of %d readers to a writer, leaving at random", k)
			}
			if err := phase(ctx, e, r, ps, what, k, func(ctx context.Context, p *pool, name string) (time.Duration, error) {
				return p.toWriter(ctx, e, name, k, random)
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeReader is a read lock that nobody writes under. The floor is a leased put and a delete.
func freeReader(ctx context.Context, e *env, r *report) error {
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
		q := c.session.reader(e.name(l.name))
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
	b, o, t := sides[0].times.median(), sides[1].times.median(), sides[2].times.median()
	r.add(result{row: "readers", what: "RLock+Release, no writer", where: e.where(), unit: "ms",
		floor: b, ours: o, theirs: t, goal: atMost(ratio(o, b), 1.05, overFloor)})
	if !e.busy {
		r.add(result{row: "readers", what: "RLock+Release, no writer", where: e.where(), unit: "requests",
			floor: 2, ours: sides[1].sent.median(), theirs: sides[2].sent.median(), goal: atMost(sides[1].sent.median(), 2, "requests")})
	}
	return nil
}

// phase measures one change of sides for both libraries, beside bare handoffs.
func phase(ctx context.Context, e *env, r *report, ps []*pool, what string, x int,
	change func(context.Context, *pool, string) (time.Duration, error),
) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	var bare sample
	got := make([]sample, len(ps))
	for round := range e.pick(8, 1) {
		for k := range ps {
			k = (k + round) % len(ps)
			if err := f.handoffs(ctx, 3, old, &bare); err != nil {
				return err
			}
			d, err := change(ctx, ps[k], e.name(ps[k].lib.name))
			if err != nil {
				return fmt.Errorf("%s: %s: %w", ps[k].lib.name, what, err)
			}
			got[k].addTime(d)
		}
	}
	b, o := bare.median(), got[0].median()
	r.add(result{row: "readers", what: what, where: e.where(), unit: "ms",
		floor: b, ours: o, theirs: got[1].median(), goal: atMost(ratio(o, b), 1.15, overFloor), x: x})
	return nil
}

// toReaders is the time from a writer's release until the last of m readers holds.
func (p *pool) toReaders(ctx context.Context, e *env, name string, m int) (time.Duration, error) {
	w := p.sessions[0].writer(name)
	if err := w.enter(ctx); err != nil {
		return 0, err
	}
	until, err := e.puts(ctx, name)
	if err != nil {
		return 0, err
	}
	all, got := make([]queue, m), make(chan grab, m)
	for i := range all {
		all[i] = p.sessions[i+1].reader(name)
		go func() {
			err := all[i].enter(ctx)
			got <- grab{i, time.Now(), err}
		}()
	}
	if err := until(m); err != nil {
		return 0, err
	}
	pause(ctx, old)
	start, last := time.Now(), time.Time{}
	if err := w.leave(ctx); err != nil {
		return 0, err
	}
	for range all {
		g := <-got
		if g.err != nil {
			return 0, g.err
		}
		if g.at.After(last) {
			last = g.at
		}
	}
	for _, q := range all {
		if err := q.leave(ctx); err != nil {
			return 0, err
		}
	}
	return last.Sub(start), nil
}

// toWriter is the time from the release of the last of k readers, who leave one right after the other, until a writer holds.
func (p *pool) toWriter(ctx context.Context, e *env, name string, k int, random bool) (time.Duration, error) {
	var all []queue
	for i := range k {
		all = append(all, p.sessions[i+1].reader(name))
		if err := all[i].enter(ctx); err != nil {
			return 0, err
		}
	}
	until, err := e.puts(ctx, name)
	if err != nil {
		return 0, err
	}
	w, got := p.sessions[0].writer(name), make(chan grab, 1)
	go func() {
		err := w.enter(ctx)
		got <- grab{0, time.Now(), err}
	}()
	if err := until(1); err != nil {
		return 0, err
	}
	pause(ctx, old)
	leaving := slices.Clone(all)
	if random {
		rand.Shuffle(k, func(i, j int) { leaving[i], leaving[j] = leaving[j], leaving[i] })
	}
	for _, q := range leaving[:k-1] {
		if err := q.leave(ctx); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	if err := leaving[k-1].leave(ctx); err != nil {
		return 0, err
	}
	g := <-got
	if g.err != nil {
		return 0, g.err
	}
	return g.at.Sub(start), w.leave(ctx)
}
