package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// turns is how often a second the lock changes hands when every client takes
// it again as soon as it has given it back: each a session and a connection
// of its own. The floor is one bare turn after another. The rings beside it are
// what as many bare clients come to: how much of the distance is the crowd's,
// and how much that of what any lock has to send.
func turns(ctx context.Context, e *env, r *report) error {
	ps, done, err := pools(ctx, e, connections)
	if err != nil {
		return err
	}
	defer done()
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	for _, c := range []struct {
		clients int
		least   float64
	}{{2, 30}, {8, 0}, {64, 3}} {
		var bare, rings, asLock sample
		got := make([]sample, len(ps))
		perTurn := make([]sample, len(ps))
		for round := range e.pick(3, 1) {
			for range 40 {
				d, err := f.turn(ctx)
				if err != nil {
					return err
				}
				bare.addTime(d)
			}
			window := time.Duration(e.pick(1500, 700)) * time.Millisecond
			for _, ring := range []struct {
				asLock bool
				*sample
			}{{false, &rings}, {true, &asLock}} {
				n, err := passTurns(ctx, e, c.clients, window, ring.asLock)
				if err != nil {
					return err
				}
				ring.add(n)
			}
			for k := range ps {
				k = (k + round) % len(ps)
				name := e.name("turns")
				before, start := ps[k].requests(), time.Now()
				n, err := takeTurns(ctx, window, mutexes(ps[k].sessions[:c.clients], name))
				if err != nil {
					return fmt.Errorf("%s: %w", ps[k].lib.name, err)
				}
				got[k].add(n)
				sent := ps[k].requests().sub(before)
				perTurn[k].add(float64(sent.total()) / (n * time.Since(start).Seconds()))
				if e.verbose {
					fmt.Println(ps[k].lib.name, sent)
				}
			}
		}
		o, t := got[0].median(), got[1].median()
		var g goal
		if c.least > 0 {
			g = atLeast(ratio(o, t), c.least, overTheirs)
		}
		r.add(result{row: "turns", what: fmt.Sprintf("%d clients taking turns", c.clients), where: e.where(), unit: "/s",
			floor: ratio(1000, bare.median()), ours: o, theirs: t, goal: g, x: c.clients,
			note: fmt.Sprintf("requests a turn %s / %s; a ring of bare clients %s/s, of such as send what a lock has to %s/s",
				number(perTurn[0].median()), number(perTurn[1].median()), number(rings.median()), number(asLock.median()))})
	}
	return nil
}

func mutexes(from []session, name string) []mutex {
	out := make([]mutex, len(from))
	for i, s := range from {
		out[i] = s.mutex(name)
	}
	return out
}

// takeTurns runs one goroutine per mutex, all on one lock, for the time given
// and returns acquisitions per second. It fails if two ever held at once or a
// token did not grow: a throughput of something that is no lock is worthless.
func takeTurns(ctx context.Context, d time.Duration, ms []mutex) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		inside, total atomic.Int64
		lastToken     int64 // guarded by the lock under test
		wg            sync.WaitGroup
		errs          = make([]error, len(ms))
	)
	start := time.Now()
	for i, m := range ms {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := m.Lock(ctx); err != nil {
					if ctx.Err() == nil {
						errs[i] = fmt.Errorf("lock: %w", err)
					}
					return
				}
				if inside.Add(1) != 1 {
					errs[i] = errors.New("two hold at once")
				}
				if t, ok := m.(interface{ Token() int64 }); ok {
					if n := t.Token(); n <= lastToken {
						errs[i] = fmt.Errorf("token %d after %d", n, lastToken)
					} else {
						lastToken = n
					}
				}
				total.Add(1)
				inside.Add(-1)
				if err := unlock(m); err != nil {
					errs[i] = fmt.Errorf("unlock: %w", err)
					return
				}
			}
		})
	}
	<-ctx.Done()
	n, took := total.Load(), time.Since(start)
	wg.Wait()
	return float64(n) / took.Seconds(), errors.Join(errs...)
}

// unlock gives back after the run's own context has ended, too.
func unlock(m mutex) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return m.Unlock(ctx)
}
