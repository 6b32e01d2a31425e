package etcdlock

import (
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// The conditions that a caller can act on. Compare with errors.Is: they come wrapped with the name of the lock
// and, where there is one, with etcd's own error.
var (
	// ErrLocked says that somebody else has the lock. A *LockedError matches it and tells who.
	ErrLocked = errors.New("etcdlock: locked by another")
	// ErrLost says that a hold ended before its holder released it: its lease ran out or was revoked, or its
	// ticket was removed. What was done under the hold was not protected to its end. A removal that nobody noticed
	// before the release shows when etcd answers that the ticket was not there; where an answer was lost or late,
	// that cannot be told from a repeated request, and the release counts.
	ErrLost = lease.ErrLost
	// ErrClosed says that the Session is closed or shutting down, or began to during the call.
	ErrClosed = queue.ErrClosed
	// ErrClientClosed says that the Session is over because the etcd client, which belongs to the caller, was closed.
	ErrClientClosed = rpc.ErrClientClosed
	// ErrNoLease says that the Session has no lease (any more), so that nothing is held or can be taken by it: it was
	// orphaned, or made WithoutLease.
	ErrNoLease = errors.New("etcdlock: the Session has no lease: it was orphaned, or made without one")
	// ErrLeaseLost says that the Session is over because the lease that WithLease gave it is gone, or could not be renewed.
	ErrLeaseLost = errors.New("etcdlock: the Session's given lease is lost")
	// ErrTaken says that a ticket cannot be taken up by Resume: it is not there, or somebody has written it since, as another
	// Resume does.
	ErrTaken = queue.ErrTaken
	// ErrNotHeld says that the Mutex is not held: never locked, or unlocked already.
	ErrNotHeld = errors.New("etcdlock: not held")
	// ErrUnconfirmed says that a hold was released, and that etcd has not confirmed that its ticket is gone. The
	// deletion goes on in the background, at worst until the lease ends; others may have to wait that long.
	ErrUnconfirmed = queue.ErrUnconfirmed
	// ErrNotLeader says that the Election value does not lead: never elected, or resigned already.
	ErrNotLeader = errors.New("etcdlock: not the leader")
	// ErrNoLeader says that nobody leads at the moment.
	ErrNoLeader = errors.New("etcdlock: no leader")
	// ErrCampaigning says that Campaign was called on an Election value that is a candidate or leads already.
	ErrCampaigning = errors.New("etcdlock: this Election value is already a candidate or leads")
	// ErrInvalidName says that the name of a lock or an election is empty.
	ErrInvalidName = errors.New("etcdlock: invalid name: a lock needs a non-empty name such as \"/cron/lock/job9\"")
)

// LockedError tells who has the lock. It matches ErrLocked.
//
// It is what the Session knew during the call; the holder may have changed since.
type LockedError struct {
	// Name is the name of the lock.
	Name string
	// Holder is the identity of the holder, that is, its ticket's value; empty where it is not known or where
	// a foreign ticket has no value (etcd's concurrency.Mutex writes none).
	Holder string
	// Token is the holder's fencing token, 0 where it is not known.
	Token int64
	// Key is the holder's ticket in etcd, empty where it is not known.
	Key string
	// Class says with whom the holder shares its turn, as Contender.Class does.
	Class string

	why string // instead of "locked by", where that would name the caller
}

// Error names the lock and its holder; what is long it shortens.
func (e *LockedError) Error() string {
	key, by := queue.Short(e.Key), e.why
	switch {
	case by != "":
	case e.Holder != "":
		by = fmt.Sprintf("locked by %q", queue.Short(e.Holder))
	default:
		by = "locked by another"
	}
	if e.Key != "" {
		by += " ("
		if e.Class != "" {
			by += e.Class + ", "
		}
		by += fmt.Sprintf("ticket %q", key)
		if e.Token != 0 {
			by += fmt.Sprintf(", token %d", e.Token)
		}
		by += ")"
	}
	return fmt.Sprintf("etcdlock: %q: %s", queue.Short(e.Name), by)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }
