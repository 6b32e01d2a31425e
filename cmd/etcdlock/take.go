package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file takes a lock: which, and how, by flags. What comes of it is the same for all kinds.

// want is what to take.
type want struct {
	names  []string
	shared bool
	wait   time.Duration
	waits  bool // --wait was given
}

// held is one hold.
type held struct {
	name, key string
	token     int64
	ctx       context.Context // over when the hold is
	release   func(context.Context) error
}

// left is how long the hold lasts if nothing is heard of etcd from now on: by the clock that its deadline is held against.
func (h *held) left() time.Duration {
	if h.ctx.Err() != nil {
		return 0
	}
	return h.ctx.(interface{ Lease() *lease.Lease }).Lease().Left()
}

func (w *want) flags(fs *pflag.FlagSet) {
	fs.BoolVarP(&w.shared, "shared", "s", false, "take the shared side, which any number hold at once (a read lock)")
	fs.DurationVarP(&w.wait, "wait", "w", 0, "`DURATION` to wait for the lock at most; 0 tries once (default: as long as it takes)")
}

// check completes w once the flags are read.
func (w *want) check(fs *pflag.FlagSet, names []string) error {
	w.names, w.waits = names, fs.Changed("wait")
	if w.wait < 0 {
		return failed("--wait %v: 0 tries once; leave it out to wait as long as it takes", w.wait)
	}
	for _, n := range names {
		if n == "" {
			return failed("the name of the lock is empty: name it, such as /cron/lock/job9")
		}
	}
	return nil
}

// once reports whether to try, and not to wait.
func (w *want) once() bool { return w.waits && w.wait == 0 }

// take takes what is wanted. It gives up with ctx, and when the time to wait is over; a try is over within limit.
func (w *want) take(ctx context.Context, s *etcdlock.Session, limit time.Duration) (*held, error) {
	switch {
	case w.once():
		tctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return w.takeOne(tctx, s)
	case w.waits:
		wctx, cancel := context.WithTimeout(ctx, w.wait)
		defer cancel()
		return w.takeOne(wctx, s)
	}
	return w.takeOne(ctx, s)
}

// takeOne is the one place that knows the kinds of locks.
func (w *want) takeOne(ctx context.Context, s *etcdlock.Session) (*held, error) {
	name := w.names[0]
	if w.shared {
		m := etcdlock.NewRWMutex(s, name)
		take := m.RLock
		if w.once() {
			take = m.TryRLock
		}
		h, err := take(ctx)
		if err != nil {
			return nil, err
		}
		return &held{name: name, key: h.Key(), token: h.Token(), ctx: h.Context(), release: h.Release}, nil
	}
	m := etcdlock.NewMutex(s, name)
	take := m.Lock
	if w.once() {
		take = m.TryLock
	}
	if err := take(ctx); err != nil {
		return nil, err
	}
	return &held{name: name, key: m.Key(), token: m.Token(), ctx: m.Context(), release: m.Unlock}, nil
}

// notObtained is how a program ends that did not get the lock.
func notObtained(err error, conflict int) error {
	var locked *etcdlock.LockedError
	switch {
	case errors.As(err, &locked):
		return &ending{conflict, fmt.Errorf("not obtained: %w", locked)}
	case errors.Is(err, etcdlock.ErrLocked):
		return &ending{conflict, fmt.Errorf("not obtained: %w", err)}
	}
	return failed("%w", err)
}
