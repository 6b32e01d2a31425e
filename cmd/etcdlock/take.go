package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file takes a lock: which, and how, by flags. What comes of it is the same for all kinds.

// want is what to take.
type want struct {
	names           []string
	shared          bool
	permits, weight int
	slot            bool
	wait            time.Duration
	waits           bool          // --wait was given
	atLeast         time.Duration // how long the lock stays taken, counted from the moment it was
}

// held is one hold.
type held struct {
	name    string   // of several, one a line, in order
	keys    []string // in the same order
	token   int64
	slot    *slot           // nil if none was asked for
	ctx     context.Context // over when the hold is
	release func(context.Context) error
	ran     bool // something was run under it
	stays   bool // the lock stays taken for a while after that
}

// key is that of the ticket; of several, one a line.
func (h *held) key() string { return strings.Join(h.keys, "\n") }

// left is how long the hold lasts if nothing is heard of etcd from now on: by the clock that its deadline is held against.
func (h *held) left() time.Duration {
	if h.ctx.Err() != nil {
		return 0
	}
	return h.lease().Left()
}

// lease is what the hold is under. The Session may have the next one already.
func (h *held) lease() *lease.Lease { return h.ctx.(interface{ Lease() *lease.Lease }).Lease() }

// label is the name for people.
func (h *held) label() string { return strings.ReplaceAll(h.name, "\n", ", ") }

// slot is a number that no other permit has at the time, with a fencing token of its own.
type slot struct {
	number int
	token  int64
}

func (w *want) flags(fs *pflag.FlagSet) {
	fs.BoolVarP(&w.shared, "shared", "s", false, "take the shared side, which any number hold at once (a read lock)")
	fs.IntVarP(&w.permits, "permits", "n", 0, "take one of `N` permits: N hold at once (a semaphore)")
	fs.IntVar(&w.weight, "weight", 1, "take `W` of the permits")
	fs.BoolVar(&w.slot, "slot", false, "have a number from 0 to N-1, too, that no other permit has: ETCDLOCK_SLOT")
	fs.DurationVarP(&w.wait, "wait", "w", 0, "`DURATION` to wait for the lock at most; 0 tries once (default: as long as it takes)")
}

// check completes w once the flags are read.
func (w *want) check(fs *pflag.FlagSet, names []string) error {
	w.names, w.waits = slices.Compact(slices.Sorted(slices.Values(names))), fs.Changed("wait")
	if w.wait < 0 {
		return failed("--wait %v: 0 tries once; leave it out to wait as long as it takes", w.wait)
	}
	switch {
	case fs.Changed("permits") && w.permits < 1:
		return failed("--permits %d: at least 1 holds at once", w.permits)
	case w.shared && w.permits > 0:
		return failed("both --shared and --permits: any number hold at once, or N do")
	case w.permits == 0 && (w.slot || fs.Changed("weight")):
		return failed("--weight and --slot are about permits: add --permits N")
	case len(names) > 1 && (w.shared || w.permits > 0):
		return failed("%d names with --shared or --permits: those take one name", len(names))
	case w.atLeast < 0:
		return failed("--hold-at-least %v: how long the lock stays taken, such as 1m", w.atLeast)
	case w.atLeast > 0 && (len(names) > 1 || w.shared || w.permits > 0):
		return failed("--hold-at-least with --shared, --permits or several names: it is for one lock that nobody shares")
	case w.permits > 0 && (w.weight < 1 || w.weight > w.permits):
		return failed("--weight %d: it is from 1 to the %d of --permits", w.weight, w.permits)
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
func (w *want) take(ctx context.Context, m *member, limit time.Duration) (*held, error) {
	switch {
	case w.once():
		tctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return w.takeOne(tctx, m.Session)
	case w.waits:
		wctx, cancel := context.WithTimeout(ctx, w.wait)
		defer cancel()
		ctx = wctx
	}
	defer m.sayWhoHolds(ctx, w.names)()
	return w.takeOne(ctx, m.Session)
}

// takeOne is the one place that knows the kinds of locks.
func (w *want) takeOne(ctx context.Context, s *etcdlock.Session) (*held, error) {
	name := w.names[0]
	var take func(context.Context) (*etcdlock.Hold, error)
	switch m, n := etcdlock.NewRWMutex(s, name), etcdlock.NewSemaphore(s, name, w.permits); {
	case len(w.names) > 1 && w.once():
		take = func(ctx context.Context) (*etcdlock.Hold, error) { return etcdlock.TryLockAll(ctx, s, w.names...) }
	case len(w.names) > 1:
		take = func(ctx context.Context) (*etcdlock.Hold, error) { return etcdlock.LockAll(ctx, s, w.names...) }
	case w.shared && w.once():
		take = m.TryRLock
	case w.shared:
		take = m.RLock
	case w.permits > 0 && w.once():
		take = func(ctx context.Context) (*etcdlock.Hold, error) { return n.TryAcquireN(ctx, w.weight) }
	case w.permits > 0:
		take = func(ctx context.Context) (*etcdlock.Hold, error) { return n.AcquireN(ctx, w.weight) }
	default:
		return w.takeAlone(ctx, s, name)
	}
	hold, err := take(ctx)
	if err != nil {
		return nil, err
	}
	h := &held{
		name: strings.Join(w.names, "\n"), keys: hold.Keys(), token: hold.Token(), ctx: hold.Context(), release: hold.Release,
	}
	if w.slot {
		h.slot = new(slot)
		if h.slot.number, h.slot.token, err = hold.Slot(ctx); err != nil {
			rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patient)
			defer cancel()
			_ = hold.Release(rctx) // the Session's end does the rest
			return nil, err
		}
	}
	return h, nil
}

// takeAlone takes a lock that nobody shares.
func (w *want) takeAlone(ctx context.Context, s *etcdlock.Session, name string) (*held, error) {
	m := etcdlock.NewMutex(s, name)
	take := m.Lock
	if w.once() {
		take = m.TryLock
	}
	if err := take(ctx); err != nil {
		return nil, err
	}
	taken := time.Now()
	h := &held{name: name, keys: []string{m.Key()}, token: m.Token(), ctx: m.Context(), stays: w.atLeast > 0}
	h.release = func(ctx context.Context) error {
		if h.stays && h.ran {
			return m.UnlockAfter(ctx, w.atLeast-time.Since(taken))
		}
		return m.Unlock(ctx)
	}
	return h, nil
}

// patient is how long the wait goes on in silence, with -v.
const patient = time.Second

// sayWhoHolds says, with -v, whom a wait is for, if it takes more than a moment. stop ends that.
func (m *member) sayWhoHolds(ctx context.Context, names []string) (stop func()) {
	log := m.app.logger()
	if !log.Enabled(ctx, slog.LevelInfo) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	timer := time.AfterFunc(patient, func() {
		defer close(done)
		for _, n := range names {
			if st, err := m.look(ctx, n); err == nil && len(st.Holders) > 0 && !m.owns(st.Holders[0]) {
				log.Info("waiting for the lock", "name", n, "held by", st.Holders[0].Identity, "waiting", len(st.Waiters))
			}
		}
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-done
		}
	}
}

// owns reports whether a ticket is this Session's own: of several locks it may hold some while it waits for others.
func (m *member) owns(c contender) bool { return c.Lease == leaseID(m.Lease()) }

// look reads the queue of a name.
func (m *member) look(ctx context.Context, name string) (state, error) {
	kvs, _, err := read(ctx, m.client, name+"/")
	return stateOf(name, kvs), err
}

// notObtained is how a program ends that did not get its lock. It names who has it: a wait that is over may not know.
func (m *member) notObtained(ctx context.Context, err error, conflict uint8) error {
	var locked *etcdlock.LockedError
	switch {
	case !errors.Is(err, etcdlock.ErrLocked):
		return failed("%w", err)
	case errors.As(err, &locked):
		err = locked
	}
	if locked != nil && locked.Key == "" {
		ctx, cancel := context.WithTimeout(ctx, patient)
		defer cancel()
		if st, rerr := m.look(ctx, locked.Name); rerr == nil && len(st.Holders) > 0 {
			by := st.Holders[0]
			err = &etcdlock.LockedError{Name: locked.Name, Holder: by.Identity, Token: by.Token, Key: by.Key, Class: by.Class}
		}
	}
	return &ending{int(conflict), fmt.Errorf("not obtained: %w", err)}
}
