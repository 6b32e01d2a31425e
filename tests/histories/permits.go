package main

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock"
)

// permits is how many the Semaphore has for most; for one worker of each machine it is one less.
const permits = 3

// permits takes permits of n in all the ways there are.
func (w *worker) permits(ctx context.Context, s *etcdlock.Session, n int) {
	sem := etcdlock.NewSemaphore(s, pool, n)
	for w.stop.Err() == nil {
		pause(w.stop, w.between(time.Millisecond, 40*time.Millisecond))
		weight := 1 + w.rnd.IntN(n)*w.rnd.IntN(2)
		class := fmt.Sprintf("%d of %d", weight, n)
		switch {
		case w.chance(4):
			w.oneHold(ctx, sem, "TryAcquire", class, w.between(20*time.Millisecond, w.cfg.TTL),
				func(ctx context.Context) (*etcdlock.Hold, error) { return sem.TryAcquireN(ctx, weight) })
		default:
			w.oneHold(ctx, sem, "Acquire", class, w.between(5*time.Millisecond, 3*w.cfg.TTL), w.bugAcquire(sem, weight, n))
		}
	}
}

// bugAcquire is sem.AcquireN, or what the bug makes of it.
func (w *worker) bugAcquire(sem *etcdlock.Semaphore, weight, n int) func(context.Context) (*etcdlock.Hold, error) {
	acquire := func(ctx context.Context) (*etcdlock.Hold, error) { return sem.AcquireN(ctx, weight) }
	if w.cfg.Bug != "overbook" {
		return acquire
	}
	return func(ctx context.Context) (*etcdlock.Hold, error) {
		holders, err := sem.Holders(ctx)
		if err != nil || len(holders) == 0 || weight > 1 || holders[0].Class != fmt.Sprintf("%d of %d", n, n) {
			return acquire(ctx)
		}
		return nil, w.putTicket(ctx, pool, fmt.Sprintf("of-%d-", n))
	}
}
