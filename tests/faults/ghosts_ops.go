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
	opUnlock = op{"Unlock", releasing(mutex, unlock), true}
	opResign = op{"Resign", releasing(election, unlock), true}
	ops      = []op{
		{"Lock", acquiring(mutex, false), false},
		{"TryLock", acquiring(mutex, true), false},
		{"Campaign", acquiring(election, false), false},
		opUnlock, opResign,
		{"Close", releasing(mutex, func(n *node, _ lock) func(context.Context) error {
			return func(context.Context) error { return n.Close() }
		}), true},
	}
	// The lingering side also lets a ticket idle and takes it up under the fault.
	lingeringOps = slices.Insert(slices.Clone(ops), len(ops)-1, op{"Unlock, Lock, Unlock", releasing(mutex, func(_ *node, l lock) func(context.Context) error {
		return func(ctx context.Context) error {
			_ = l.Release(ctx)
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			return l.Release(ctx)
		}
	}), true})
)

func (n *node) ops() []op {
	if n.linger > 0 {
		return lingeringOps
	}
	return ops
}
