//go:build unix

package main

import (
	"context"
	"slices"
	"time"
)

const (
	ghostTTL = 6 * time.Second
	interval = ghostTTL / 3 // of renewals
	slack    = 300 * time.Millisecond
)

// op is a call that a fault cuts. prepare brings about what it needs and
// returns it.
type op struct {
	name    string
	prepare func(ctx context.Context, n *node, key string) (func(context.Context) error, lock, error)
	release bool // it ends a hold
	stays   bool // and the lock stays taken, for stayTime
}

func acquiring(pick func(*node, string) lock, try bool) func(context.Context, *node, string) (func(context.Context) error, lock, error) {
	return func(_ context.Context, n *node, key string) (func(context.Context) error, lock, error) {
		l := pick(n, key)
		if try {
			return l.Try, l, nil
		}
		return l.Acquire, l, nil
	}
}

func releasing(pick func(*node, string) lock, call func(*node, lock) func(context.Context) error) func(context.Context, *node, string) (func(context.Context) error, lock, error) {
	return func(ctx context.Context, n *node, key string) (func(context.Context) error, lock, error) {
		l := pick(n, key)
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return call(n, l), l, n.acquire(ctx, l)
	}
}

func mutex(n *node, key string) lock    { return n.Mutex(key) }
func election(n *node, key string) lock { return n.Election(key, "value") }

func unlock(_ *node, l lock) func(context.Context) error { return l.Release }

var (
	opUnlock = op{name: "Unlock", prepare: releasing(mutex, unlock), release: true}
	opResign = op{name: "Resign", prepare: releasing(election, unlock), release: true}
	ops      = []op{
		{name: "Lock", prepare: acquiring(mutex, false)},
		{name: "TryLock", prepare: acquiring(mutex, true)},
		{name: "Campaign", prepare: acquiring(election, false)},
		opUnlock, opResign,
		{name: "Close", prepare: releasing(mutex, func(n *node, _ lock) func(context.Context) error {
			return func(context.Context) error { return n.Close() }
		}), release: true},
	}
	// The lingering side also lets a ticket idle and takes it up under the fault.
	lingeringOps = slices.Insert(slices.Clone(ops), len(ops)-1, op{name: "Unlock, Lock, Unlock", prepare: releasing(mutex, func(_ *node, l lock) func(context.Context) error {
		return func(ctx context.Context) error {
			_ = l.Release(ctx)
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			return l.Release(ctx)
		}
	}), release: true})
	// The sides whose locks can stay taken do that, too.
	opUnlockAfter = op{name: "UnlockAfter", prepare: releasing(mutex, func(_ *node, l lock) func(context.Context) error {
		return func(ctx context.Context) error { return l.(stayer).ReleaseAfter(ctx, stayTime) }
	}), release: true, stays: true}
)

func (n *node) ops() []op {
	all := ops
	if n.linger > 0 {
		all = lingeringOps
	}
	if _, ok := n.Mutex("any").(stayer); ok {
		all = slices.Insert(slices.Clone(all), len(all)-1, opUnlockAfter)
	}
	return all
}

// kept is how long the lock stays taken after the call at most, 0 if it does not.
func (o op) kept() time.Duration {
	if o.stays {
		return stayLimit
	}
	return 0
}

// beyond is what of d is more than that; early reports whether the lock has been taken for less than was said.
func (o op) beyond(d time.Duration) time.Duration { return max(0, d-o.kept()) }

func (o op) early(called time.Time) bool { return o.stays && time.Since(called) < stayTime }
