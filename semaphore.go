package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Semaphore is a distributed semaphore: of its permits, n at most are held at once, by whatever process. Each is held by a
// Hold of its own, so any number of goroutines may use one value. It is not copied. All methods are safe for concurrent use.
//
// Turns go strictly first come, first served, also where permits are free: a call that waits for three makes those after it
// wait that ask for one. So nobody starves, and a large request is not overtaken for ever.
//
// All members should agree on n. Those who do not take turns: what queued together under one n holds together, and what
// queued later under another n waits until they are done. Nobody ever sees more holders than its own n, and a rolling change
// of n goes on by itself; the log says so once, at Warn. A Mutex of the same name takes all permits: it waits until every
// permit that was asked for before it is given back, and those who come later wait for it. The write side of an RWMutex,
// etcd's concurrency.Mutex and etcdctl lock do the same. An Election must have a name of its own.
//
// The token of a permit fences nothing: several are valid at once, in no order that matters. See Hold.Slot for what does.
type Semaphore struct {
	named
	permits int

	mu   sync.Mutex // guards what follows; a leaf
	seen queue.Seen // who was in the way of the last TryAcquire
}

// NewSemaphore returns a Semaphore of n permits for name; see NewMutex. It asks nothing of etcd. If n is below 1, each call
// that takes a permit says so.
func NewSemaphore(s *Session, name string, n int) *Semaphore {
	return &Semaphore{named: named{s: s, name: name, kind: permitKind(n, 1)}, permits: n}
}

func permitKind(n, w int) *kind {
	return &kind{
		take: "acquire", give: "release", notHeld: ErrNotHeld,
		ticket: &queue.Kind{Name: "permit", Class: queue.Of(int64(n)), Weight: int64(w), Released: ErrNotHeld},
	}
}

// Name returns the name as it was given.
func (m *Semaphore) Name() string { return m.name }

// Acquire waits for a permit for as long as ctx allows. Once it has returned, ctx has no bearing on the hold, which lasts
// until Release, or until it is lost: give each Hold back, a lost one too. A process that crashes gives its permits back
// within the TTL.
//
// Errors are those of Mutex.Lock, and mean that nothing is held and that no ticket stays in the queue. A *LockedError names
// one of those in the way; its Class tells the limit under which it queued.
func (m *Semaphore) Acquire(ctx context.Context) (*Hold, error) { return m.AcquireN(ctx, 1) }

// AcquireN waits for w permits at once, all or none, which one Hold has.
func (m *Semaphore) AcquireN(ctx context.Context, w int) (*Hold, error) {
	n, err := m.request(ctx, w)
	if err != nil {
		return nil, err
	}
	t, err := n.acquire(ctx, m.s.opts.identity, n.lockedBy)
	if err != nil {
		return nil, err
	}
	return n.hold(t), nil
}

// TryAcquire takes a permit if one is free and nobody waits, and else says at once who is in the way: its error matches
// ErrLocked. Its other errors are those of Mutex.TryLock. It takes one round trip if nobody holds a permit and two if
// somebody does; if none is free one, from the second time on without a write to etcd's log. Where others come and go so fast
// that its question is out of date before it takes effect, it asks again, a few times, and then queues for a moment.
func (m *Semaphore) TryAcquire(ctx context.Context) (*Hold, error) { return m.TryAcquireN(ctx, 1) }

// TryAcquireN is TryAcquire for w permits at once, all or none.
func (m *Semaphore) TryAcquireN(ctx context.Context, w int) (*Hold, error) {
	n, err := m.request(ctx, w)
	if err != nil {
		return nil, err
	}
	t, by, err := n.try(ctx, m.s.opts.identity, &m.mu, &m.seen)
	switch {
	case err != nil:
		return nil, err
	case by != nil:
		return nil, n.lockedBy(by)
	}
	return n.hold(t), nil
}

// request is the semaphore for requests of w permits, if there can be any.
func (m *Semaphore) request(ctx context.Context, w int) (*named, error) {
	const take = "acquire"
	if err := m.begin(ctx, take); err != nil {
		return nil, err
	}
	switch {
	case m.permits < 1:
		return nil, fmt.Errorf("etcdlock: %s %q: a semaphore of %d permits: give NewSemaphore at least 1", take, m.shown(), m.permits)
	case w < 1:
		return nil, fmt.Errorf("etcdlock: %s %q: %d permits: ask for 1 to %d", take, m.shown(), w, m.permits)
	case w > m.permits:
		return nil, fmt.Errorf("etcdlock: %s %q: %d permits of %d, which would never be free: ask for 1 to %d", take, m.shown(), w, m.permits, m.permits)
	case w == 1:
		return &m.named, nil
	}
	return &named{s: m.s, name: m.name, kind: permitKind(m.permits, w)}, nil
}

// Do takes a permit, runs fn and releases it; see Mutex.Do. Where fn needs the Hold, use Acquire.
func (m *Semaphore) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := m.needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := m.Acquire(ctx)
	if err != nil {
		return err
	}
	return h.do(ctx, fn)
}

// Holders asks etcd who has permits, in the order in which they queued: nobody, or those of one limit, or a Mutex of the
// name. It retries while etcd is away, until ctx ends.
func (m *Semaphore) Holders(ctx context.Context) ([]Contender, error) {
	holders, _, err := m.contenders(ctx, "holders of")
	return holders, err
}

// Waiters asks etcd who waits, in the order of their turns; who holds is not among them. It retries while etcd is away,
// until ctx ends.
func (m *Semaphore) Waiters(ctx context.Context) ([]Contender, error) {
	_, waiters, err := m.contenders(ctx, "waiters of")
	return waiters, err
}

// Slot gives the hold of a Semaphore one of the numbers from 0 to n-1 that no other hold has at the time, and always the same
// one: for a port, a shard, a worker's number. It goes with the hold. The first call takes two round trips, a later one one.
//
// The token is a fencing token for that number: greater than that of every earlier hold that had it. It compares with those
// of the same number only, so the store keeps the greatest it has seen for each number. It does not compare with the token of
// any ticket: one that queued before may hold later.
//
// It retries while etcd is away, until ctx or the hold ends. Where all numbers are taken it waits: one of them is that of a
// hold whose ticket others have removed, and whose owner has yet to notice. If ctx ends first, the error matches ctx.Err() and
// ErrLocked. A hold that is not a Semaphore's has no number:
// that is an error.
//
// A number is a key "name/of-<n>-slot/<number>" in etcd, so a lock of the name "name/of-<n>-slot" would wait for it: take none.
func (h *Hold) Slot(ctx context.Context) (slot int, token int64, err error) {
	if err := h.begin(ctx, "slot of"); err != nil {
		return 0, 0, err
	}
	if !h.ticket.Permit() {
		return 0, 0, fmt.Errorf("etcdlock: slot of %q: only a hold of a Semaphore has one", h.shown())
	}
	n, token, err := h.ticket.Slot(ctx)
	if errors.Is(err, queue.ErrAllTaken) {
		err = fmt.Errorf("%w: %w", ErrLocked, err)
	}
	if err != nil {
		return 0, 0, h.failed("slot of", err)
	}
	return int(n), token, nil
}
