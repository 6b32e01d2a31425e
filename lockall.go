package etcdlock

import (
	"context"
	"fmt"
	"slices"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// maxNames is how many names one Txn can take: two operations for each, of the 128 that etcd takes by default, and two to
// spare.
const maxNames = 63

var allKind = &kind{
	take: "lock", give: "release", notHeld: ErrNotHeld,
	ticket: &queue.Kind{Name: "lockall", Class: queue.Exclusive, Weight: 1, Released: ErrNotHeld},
}

// LockAll takes the locks of several names together, all or none, as a Mutex of each would, for as long as ctx allows. It
// takes one round trip where all are free, and else as long as the longest of the waits.
//
// Callers cannot deadlock on one another, in whatever order they name their locks: the tickets of one call are put in one
// transaction, so whoever came first in one queue did so in all. What no library can prevent is that a caller holds one
// lock and then waits for another. So take together what you need together.
//
// The Hold is one for all names: its Context ends when the first of them is lost, and the others stay taken until Release,
// since the work may not have ended. It has one token, greater than that of every earlier hold of any of the names.
// IsOwner has a comparison for each name. Release gives all back in one request.
//
// It takes 1 to 63 names. A name that is given twice counts once. Errors are those of Mutex.Lock, and mean that
// nothing is held and that no ticket stays in any queue; a *LockedError tells which of the names is held, and by whom. A
// name that this Session holds already is waited for like any other.
func LockAll(ctx context.Context, s *Session, names ...string) (*Hold, error) {
	n, names, err := allOf(ctx, s, allKind.take, names)
	if err != nil {
		return nil, err
	}
	t, by, in, err := s.tickets.Acquire(ctx, n.kind.ticket, n.name, names, s.opts.identity)
	if by != nil {
		err = fmt.Errorf("%w: %w", err, n.lockedIn(by, in))
	}
	if err != nil {
		return nil, n.failed(n.kind.take, err)
	}
	return n.hold(t), nil
}

// TryLockAll takes the locks of all names if nobody holds or waits for any of them, and else says at once who does, with a
// *LockedError for that name. Either takes one round trip; see Mutex.TryLock for what names that nest add to it.
func TryLockAll(ctx context.Context, s *Session, names ...string) (*Hold, error) {
	n, names, err := allOf(ctx, s, allKind.take, names)
	if err != nil {
		return nil, err
	}
	t, by, in, err := s.tickets.Try(ctx, n.kind.ticket, n.name, names, s.opts.identity, new(queue.Seen))
	switch {
	case err != nil:
		return nil, n.failed(n.kind.take, err)
	case by != nil:
		return nil, n.lockedIn(by, in)
	}
	return n.hold(t), nil
}

// DoAll takes the locks of all names, runs fn and releases them; see Mutex.Do. Where fn needs the token, use LockAll.
func DoAll(ctx context.Context, s *Session, names []string, fn func(ctx context.Context) error) error {
	n, names, err := allOf(ctx, s, "do", names)
	if err != nil {
		return err
	}
	if err := n.needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := LockAll(ctx, s, names...)
	if err != nil {
		return err
	}
	return h.do(ctx, fn)
}

// allOf checks what was given, and returns the names that are different, in order, and what stands for all of them.
func allOf(ctx context.Context, s *Session, verb string, names []string) (*named, []string, error) {
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("etcdlock: %s all: no names: LockAll takes 1 to %d of them", verb, maxNames)
	}
	for i, name := range names {
		if err := (&named{s: s, name: name}).begin(ctx, verb); err != nil {
			if name == "" {
				err = fmt.Errorf("etcdlock: %s all: name %d of %d: %w", verb, i+1, len(names), err)
			}
			return nil, nil, err
		}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > maxNames {
		return nil, nil, fmt.Errorf("etcdlock: %s all: %d different names: at most %d fit in one transaction of etcd's: "+
			"lock one name that stands for many of them", verb, len(names), maxNames)
	}
	all := names[0]
	if len(names) > 1 {
		all = fmt.Sprintf("%s and %d more", queue.Short(all), len(names)-1)
	}
	return &named{s: s, name: all, kind: allKind}, names, nil
}

// lockedIn tells who is in the way, in the queue of one of the names.
func (n *named) lockedIn(by *queue.Contender, name string) *LockedError {
	err := n.lockedBy(by)
	err.Name = name
	return err
}
