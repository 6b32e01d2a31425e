package etcdlock

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Mutex is a distributed lock. A Mutex value is used like a sync.Mutex: it is shared by goroutines and not copied, it
// holds at most once at a time, and any goroutine may unlock it. Values with the same name exclude each other, in one
// Session, in one process or across the cluster. All methods are safe for concurrent use.
//
// A hold can end without Unlock (see ErrLost); Context tells. A hold that was lost occupies the value, and nothing
// else, until one Unlock has returned ErrLost: until then Lock on this value waits and TryLock says ErrLocked. So a
// late Unlock can never free a later hold.
type Mutex struct {
	handle

	seen queue.Seen // who was in the way of the last TryLock; guarded by mu
}

// NewMutex returns a Mutex for name, used verbatim: "a" and "a/" are different locks, and holding "a/b" does not block
// "a". An empty name is ErrInvalidName at the first Lock or TryLock. It asks nothing of etcd.
func NewMutex(s *Session, name string) *Mutex {
	return &Mutex{handle: handle{named: named{s: s, name: name, kind: mutexKind}}}
}

// Name returns the name as it was given.
func (m *Mutex) Name() string { return m.name }

// Lock waits for the lock, first come, first served by create revision, for as long as ctx allows. Once it has
// returned nil, ctx has no bearing on the hold.
//
// An error means that the lock is not held, and that no ticket stays in the queue: what cannot be cleaned up at once
// is in the background. When ctx ends while others hold, the error matches both ctx.Err() and ErrLocked (and a
// *LockedError names the holder, if it was seen); with etcd out of reach it matches ctx.Err() and tells etcd's last
// error. A Session that closes gives ErrClosed, an empty name ErrInvalidName. Errors that no retry can mend
// (permissions, a full store) are returned at once; everything else is retried.
//
// Where somebody deletes the ticket of the holder and that of the next waiter together, that waiter's Lock may return
// nil and its hold end a moment later: Context and Unlock tell.
func (m *Mutex) Lock(ctx context.Context) error {
	_, err := m.lock(ctx)
	return err
}

func (m *Mutex) lock(ctx context.Context) (*Hold, error) {
	if err := m.begin(ctx, m.of().take); err != nil {
		return nil, err
	}
	for {
		if err := m.awaitFree(ctx); err != nil {
			return nil, err
		}
		t, err := m.acquire(ctx, m.s.opts.identity)
		if err != nil {
			return nil, err
		}
		if h := m.adopt(t); h != nil {
			return h, nil
		}
	}
}

// TryLock takes the lock if it is free and nobody waits for it, and else says at once who has it. Either takes one round
// trip, and one more where the holder that the try before found is gone. A try that finds the lock busy writes no key; the
// first try of a value leaves an entry in etcd's log all the same, as every conditional write does, and from the second on
// it is a read alone for as long as the same holder has the lock. Where keys of names below this one come and go, it
// takes a few round trips more, and may queue for a moment to see who is ahead.
//
// Busy is a *LockedError that names the holder and matches ErrLocked. While the Session has no lease, because the last
// one was lost, TryLock waits for the next one as long as ctx allows; other troubles it reports as they are. Any error
// means that the lock is not held and that nothing stays behind, as for Lock.
func (m *Mutex) TryLock(ctx context.Context) error {
	_, err := m.tryLock(ctx)
	return err
}

func (m *Mutex) tryLock(ctx context.Context) (*Hold, error) {
	if err := m.begin(ctx, m.of().take); err != nil {
		return nil, err
	}
	if old := m.held(); old != nil && m.s.over() == nil {
		return nil, m.occupied(old)
	}
	t, by, err := m.try(ctx, m.s.opts.identity, &m.mu, &m.seen)
	switch {
	case err != nil:
		return nil, err
	case by != nil:
		return nil, m.lockedBy(by)
	}
	if h := m.adopt(t); h != nil {
		return h, nil
	}
	if old := m.held(); old != nil {
		return nil, m.occupied(old)
	}
	return nil, &LockedError{Name: m.name, Holder: m.s.opts.identity} // released in this very moment
}

// occupied is the error of a call that cannot go on because this very value has a hold.
func (m *Mutex) occupied(h *Hold) error {
	why := "held by this Mutex value itself"
	if h.Context().Err() != nil {
		why = "the last hold of this Mutex value was lost and awaits its Unlock"
	}
	return &LockedError{Name: m.name, Holder: h.ticket.Value(), Token: h.Token(), Key: h.Key(), why: why}
}

// awaitFree waits while a lost hold occupies the value. A live one is waited for in the queue.
func (m *Mutex) awaitFree(ctx context.Context) error {
	for warned := false; ; warned = true {
		old := m.held()
		if old == nil || old.Context().Err() == nil {
			return nil
		}
		m.mu.Lock()
		if m.hold != old {
			m.mu.Unlock()
			continue
		}
		if m.freed == nil {
			m.freed = make(chan struct{})
		}
		freed := m.freed
		m.mu.Unlock()
		if !warned {
			m.s.opts.log.Warn("etcdlock: Lock waits, because the last hold of this Mutex value was lost and awaits its Unlock",
				"name", m.shown(), "token", old.Token())
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return fmt.Errorf("etcdlock: lock %q: %w: %w", m.shown(), ctx.Err(), m.occupied(old))
		case <-m.s.tasks.Closing().Done():
			return m.failed("lock", m.s.over())
		}
	}
}

// Unlock releases the lock. It returns nil when etcd has confirmed that the ticket is gone. From the moment it is
// called the lock is not held, whatever it returns:
//
//   - ErrLost: the hold had ended before. What was done under it was not protected to its end.
//   - ErrNotHeld: nothing was held; ErrClosed: nothing is held, since the Session was closed.
//   - ErrUnconfirmed, which comes with ctx.Err() or with what etcd said: the deletion is not confirmed yet. It goes on in
//     the background, at worst until the lease ends. Called again before the next Lock, Unlock reports how that went.
//
// It returns when ctx ends and, with etcd out of reach, by the hold's deadline as it is at the call. A ctx that is over
// already, as that of a request often is by the time of a deferred Unlock, leaves no time for the confirmation: then pass
// context.WithoutCancel(ctx), with a deadline of your own if you want one.
func (m *Mutex) Unlock(ctx context.Context) error { return m.release(ctx, nil, 0) }

// UnlockAfter ends the hold at once, as Unlock does, but the lock stays taken for d more, also if this process ends: for
// work that must not be done twice within some time. A lock alone prevents two runs at once, but not a second run a moment
// later, by a machine whose clock is a little behind. Everybody sees the lock as held by this Session, and waits or is told
// ErrLocked, this Session itself too. A d of 0 or less is Unlock.
//
// It returns nil when etcd has confirmed that, and ErrNotHeld after an Unlock, also where that is not confirmed. d counts from
// the call and is rounded up to whole seconds and to the least TTL that etcd grants (2 s by default); a change of etcd's leader
// may make it longer, and nothing makes it shorter. Nothing ends it early but deleting the key. Whoever crashes before the call
// leaves the lock for its TTL only: this is for work that has been done. Errors are those of Unlock. ErrUnconfirmed says that it
// goes on in the background, for as long as the Session lasts; what etcd refuses for good releases the lock at once, with etcd's
// error.
func (m *Mutex) UnlockAfter(ctx context.Context, d time.Duration) error {
	return m.release(ctx, nil, d)
}

// Context returns a context for the work done under the lock. It is over, with context.Canceled as its Err, the
// moment the hold can no longer be relied on: by this process's own clock, before etcd can have given the lock to
// anyone else. context.Cause tells why: ErrLost, ErrClosed, or ErrNotHeld after Unlock. It has no deadline, because
// renewals move it. It is never nil: for a Mutex that is not held it is over already, with the cause ErrNotHeld.
//
// Err consults the clock, so that a process that was stopped gets the truth from its first question after waking. A
// context derived from this one learns of the end by a timer, which may run later: ask this one before you write.
func (m *Mutex) Context() context.Context { return m.context() }

// Token returns the hold's fencing token: the create revision of its ticket, greater than that of every earlier hold of
// this name in the history of the cluster. A store that refuses a token smaller than the greatest it has seen is safe
// from a holder that was stopped and woke too late. 0 when not held.
func (m *Mutex) Token() int64 { return m.held().Token() }

// Key returns the key of the hold's ticket in etcd, empty when not held.
func (m *Mutex) Key() string { return m.held().Key() }

// IsOwner returns a guard for an etcd transaction: If(m.IsOwner()) lets it commit only while this hold's ticket exists.
// Once the hold is released, and from the moment another can begin, it is never true again. When not held, or lost, it
// is a comparison that is never true.
//
// Once a hold has given out its guard, its handoff goes through etcd, not in memory.
func (m *Mutex) IsOwner() clientv3.Cmp { return m.isOwner() }

// Wanted returns a channel that is closed once somebody waits for this hold to end: it stands behind it in the queue.
// It suits work that can stop early, or that should go on only as long as nobody else wants the lock. Queueing is the
// request, so it comes from every kind of client; a TryLock does not queue. The channel is never closed once the hold
// has ended, and nil, which blocks for ever, if there is none: wait for it beside Context.
//
// It costs one watch and one list of the queue for each name, and a list for each third of the TTL, from the first call to
// the end of the hold. While etcd cannot be reached it tells nothing.
func (m *Mutex) Wanted() <-chan struct{} { return m.held().Wanted() }

// Verify asks etcd, by one linearizable request, whether the lock is held: nil means that it was, at some instant during
// the call. ErrLost ends the hold; ErrNotHeld if there is none; another error says that etcd could not be asked, and
// changes nothing.
func (m *Mutex) Verify(ctx context.Context) error { return m.verify(ctx) }
