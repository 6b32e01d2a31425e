//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

func runGhosts(ctx context.Context, s *suite) error {
	return s.eachImpl(ctx, cluster.Options{}, func(ctx context.Context, e *env, i impl) error {
		for _, c := range []struct {
			name string
			run  func(context.Context, *suite, impl, *tally) error
			ends string
		}{
			{"context ends at a random moment", e.ghostsRandom, "cleaned up after"},
			{"answer lost", e.ghostsAnswerLost, "waited behind it"},
			{"server restarted while the answer is due", e.ghostsRestart, "waited behind it"},
			{"request arrives after the clean-up", e.ghostsLate, "gone after its arrival in"},
			{"late Unlock, Resign after the next Lock", e.ghostsLateRelease, "locked again in"},
		} {
			if !s.want(c.name) {
				continue
			}
			var t tally
			if err := c.run(ctx, s, i, &t); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			s.add(row{name: c.name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure(c.ends)})
		}
		return nil
	})
}

// ghostsRandom cuts calls on a healthy link before, during and after the commit.
func (e *env) ghostsRandom(ctx context.Context, s *suite, i impl, t *tally) error {
	r := s.rand()
	const width = 5
	per := max(1, s.pick(500, 50)/width)
	seeds := [width]uint64{}
	for j := range seeds {
		seeds[j] = r.Uint64()
	}
	return parallel(width, width, func(j int) error {
		n, err := e.node(ctx, i, ghostTTL)
		if err != nil {
			return err
		}
		defer n.close()
		r := rand.New(rand.NewPCG(seeds[j], 3))
		for q := range per {
			o := n.ops()[q%(len(n.ops())-1)] // all but Close, which takes no context
			key := e.prefix("random")
			call, l, err := o.prepare(ctx, n, key)
			if err != nil {
				return err
			}
			cut, cancel := context.WithTimeout(ctx, time.Duration(r.Int64N(int64(3*time.Millisecond))))
			called := time.Now()
			err = call(cut)
			cancel()
			if err == nil && !o.release {
				done, cancel := context.WithTimeout(ctx, 10*time.Second)
				err = l.Release(done)
				cancel()
				if err != nil {
					return err
				}
			}
			d, err := e.waitKeys(ctx, key+"/", 0, interval+slack+n.linger+o.kept()) // nobody else wants it
			t.count(err != nil || o.early(called), o.beyond(d), o.name+" left its key, or too early")
		}
		return nil
	})
}

// start runs a call whose context ends after a while, and returns a channel
// that says when it has returned; some never do.
func start(ctx context.Context, call func(context.Context) error, d time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		_ = call(ctx)
	}()
	return done
}

// await waits for done, for d at most, and says whether it came.
func await(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// behind queues another session's Lock, after what was called, and counts how long it takes from now.
func (e *env) behind(ctx context.Context, b *node, key string, o op, called time.Time, t *tally) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, interval+slack+o.kept())
	defer cancel()
	l := b.Rival(key)
	err := l.Acquire(limited)
	d := time.Since(began)
	if err != nil {
		t.count(true, d, o.name+" stuck its successor")
		return ctx.Err()
	}
	early := o.early(called)
	done, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := l.Release(done); err != nil {
		return err
	}
	_, err = e.waitKeys(ctx, key+"/", 0, slack+b.linger)
	t.count(err != nil || early, o.beyond(d), o.name+" left its key, or too early")
	return ctx.Err()
}

func (e *env) ghostsAnswerLost(ctx context.Context, s *suite, i impl, t *tally) error {
	b, err := e.node(ctx, i, time.Minute)
	if err != nil {
		return err
	}
	defer b.close()
	return parallel(s.pick(60, 12), 12, func(j int) error {
		n, err := e.node(ctx, i, ghostTTL)
		if err != nil {
			return err
		}
		defer n.close()
		o, key := n.ops()[j%len(n.ops())], e.prefix("answer")
		call, _, err := o.prepare(ctx, n, key)
		if err != nil {
			return err
		}
		n.hold(faultproxy.ToClient)
		called := time.Now()
		await(ctx, start(ctx, call, 400*time.Millisecond), 700*time.Millisecond)
		if j%2 == 0 && n.linger > 0 { // the others' tickets idle still when the fault is over
			if err := pause(ctx, n.linger+slack); err != nil {
				return err
			}
		}
		n.reset()
		return e.behind(ctx, b, key, o, called, t)
	})
}

func (e *env) ghostsRestart(ctx context.Context, s *suite, i impl, t *tally) error {
	n := s.pick(30, 8)
	nodes, keys, called := make([]*node, n), make([]string, n), make([]time.Time, n)
	defer func() { closeAll(compact(nodes)) }()
	b, err := e.node(ctx, i, time.Minute)
	if err != nil {
		return err
	}
	defer b.close()
	if err := parallel(n, n, func(j int) (err error) {
		if nodes[j], err = e.node(ctx, i, ghostTTL); err != nil {
			return err
		}
		keys[j] = e.prefix("restart")
		call, _, err := nodes[j].ops()[j%len(nodes[j].ops())].prepare(ctx, nodes[j], keys[j])
		if err != nil {
			return err
		}
		nodes[j].hold(faultproxy.ToClient)
		called[j] = time.Now()
		await(ctx, start(ctx, call, 400*time.Millisecond), 700*time.Millisecond)
		return nil
	}); err != nil {
		return err
	}
	if err := e.Members[0].Restart(); err != nil {
		return err
	}
	if err := e.WaitReady(ctx); err != nil {
		return err
	}
	for _, n := range nodes {
		n.reset()
	}
	// Dials back off while a server is away; that is the client's doing, and
	// waiting for the session's first answer keeps it out of the figure.
	if err := parallel(n, n, func(j int) error {
		try, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		_, err := nodes[j].cli.Get(try, "reachable")
		return err
	}); err != nil {
		return err
	}
	return parallel(n, n, func(j int) error {
		return e.behind(ctx, b, keys[j], nodes[j].ops()[j%len(nodes[j].ops())], called[j], t)
	})
}
