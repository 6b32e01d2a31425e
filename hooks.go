package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Hooks are functions of yours that a Session calls when something happens to its locks and its lease: for metrics, traces
// and alarms. Any of them may be nil; nothing is done for one that is. WithHooks sets them.
//
// But for Opened they are called in the background, one after the other, in the order in which the Session noticed what
// they tell. So a hook is told a little later, and whatever it does, it does no harm to a hold: while one blocks, locks are
// taken and released, renewals go on and lost holds end, and what happens meanwhile waits to be told. Once 131,072 events
// wait, further ones are dropped; Stats counts them. Close waits until all have been told, for a second at most where one
// blocks.
//
// A hook may call everything of this package. One that panics ends the process, as a panic in any goroutine does. A call
// that returns after the end of its Session calls its hooks itself, before it returns, at the same time as others perhaps.
type Hooks struct {
	// Opened: NewSession is about to return s. It is called by NewSession itself, for whoever wants to ask s later: for its
	// Stats at each scrape.
	Opened func(s *Session)
	// WaitBegun: a call begins to queue, or to try. Here and in WaitEnded ctx has the values of the context of that call,
	// a trace for one, and does not end with it.
	WaitBegun func(ctx context.Context, w Wait)
	// WaitEnded: that call is about to return. If it got the lock, a hold has begun. There is one for each WaitBegun.
	WaitEnded func(ctx context.Context, w WaitEnd)
	// HoldEnded: a hold was released, or lost, or its Session was closed. There is one for each hold, also if nobody has
	// asked its Context or called Unlock yet. Where hold and wait end at nearly the same moment it can be told first.
	HoldEnded func(HoldEnd)
	// Renewed: a renewal of the lease was acknowledged, or an attempt at one has failed, and others follow while the lease
	// lives.
	Renewed func(Renewal)
	// LeaseReplaced: after the loss of its lease the Session has the next one.
	LeaseReplaced func(LeaseReplacement)
	// Overrun: a function of Do or Run still runs a twentieth of the TTL (and WithMargin's time) after its hold has ended,
	// when others may hold; and once more when it has returned at last. Session.CheckOverrun is for those that never do.
	Overrun func(Overrun)
}

// WithHooks sets functions that the Session calls when something happens; see Hooks. The default is none. Given several
// times, each set is called, in that order.
func WithHooks(hooks Hooks) Option {
	return func(o *options) error {
		o.hooks = append(o.hooks, hooks)
		return nil
	}
}

// Wait is a call that wants to hold: Lock, TryLock, Do, Campaign, Run and their like. A call that waits, or is refused, because
// the last hold of its own value was lost and awaits its Unlock does not queue, and is none: the log tells of it, at Warn.
type Wait struct {
	// Kind is what is wanted: "mutex" (so is the write side of an RWMutex), "reader", "permit" (of a Semaphore), "lockall" or
	// "election".
	Kind string
	// Name is the name of the lock or the election; of LockAll, a label of all: the first name, and how many more there are.
	Name string
	// Try says that it is taken only if it is free.
	Try bool
	// Began is when it began, by this machine's clock.
	Began time.Time
}

// Outcome is what came of a Wait.
type Outcome string

// The outcomes of a Wait.
const (
	OutcomeHeld     Outcome = "held"     // a hold has begun
	OutcomeBusy     Outcome = "busy"     // a try found somebody else; no failure
	OutcomeCanceled Outcome = "canceled" // the context of the call ended
	OutcomeClosed   Outcome = "closed"   // the Session is over
	OutcomeFailed   Outcome = "failed"   // etcd refused
)

// WaitEnd is what came of a Wait.
type WaitEnd struct {
	Wait
	// Waited is how long it took.
	Waited time.Duration
	// Outcome is what came of it.
	Outcome Outcome
	// InMemory says that the hold came from another of this Session in memory, before etcd had confirmed that one's release.
	InMemory bool
	// Token and Key are those of the hold, if there is one; Names are the names that it is of, one but for LockAll.
	Token int64
	Key   string
	Names []string
	// Err is why there is none. It matches what the error of the call matches.
	Err error
}

// Ending is how a hold ended.
type Ending string

// The endings of a hold.
const (
	EndingReleased Ending = "released" // its holder gave it back in time
	EndingLost     Ending = "lost"     // it ended before
	EndingClosed   Ending = "closed"   // with its Session
)

// LossCause is why a hold was lost, or a lease.
type LossCause string

// The causes of a loss.
const (
	// LostByDeadline: no renewal was acknowledged in time.
	LostByDeadline LossCause = "deadline"
	// LostByRevoke: etcd said that there is no such lease: somebody revoked it, or it ran out there.
	LostByRevoke LossCause = "revoked"
	// LostByRemoval: somebody deleted the ticket. Where a lease is revoked, one of its tickets may be noticed first, and the
	// loss of that hold be told as this.
	LostByRemoval LossCause = "removed"
)

// HoldEnd is the end of a hold. Of LockAll each name is a hold of its own here, and they all end when the first does.
type HoldEnd struct {
	Kind  string // as in Wait
	Name  string
	Token int64
	Key   string
	// Held is how long it was held: to the end of the hold, not to the moment when somebody noticed it.
	Held time.Duration
	// Ending is how it ended.
	Ending Ending
	// Cause is why, if it was lost; else empty.
	Cause LossCause
}

// Renewal is a renewal of the lease.
type Renewal struct {
	Lease clientv3.LeaseID
	// Took is how long it took, or how long the attempt that failed did.
	Took time.Duration
	// Left is how long the lease can be relied on from now, without another one.
	Left time.Duration
	// Err is nil for a renewal that etcd acknowledged.
	Err error
}

// LeaseReplacement is the next lease of a Session.
type LeaseReplacement struct {
	Old, New clientv3.LeaseID
	// Cause is why the old one was lost.
	Cause LossCause
	// Without is how long there was none.
	Without time.Duration
}

// Overrun is a function of Do or Run that runs although its hold has ended.
type Overrun struct {
	Kind  string // as in Wait
	Name  string
	Token int64
	// For is how long, so far.
	For time.Duration
	// Returned says that the function has returned.
	Returned bool
}
