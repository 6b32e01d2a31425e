package queue

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file tells and counts waits and holds, for every primitive in one place: a wait goes through Acquire, Try or Resume, and a
// hold begins and ends where the ticket's state changes (state.go). What runs on after its hold is in work.go.

// Observer is told what happens to tickets. Without one nobody reads a clock for it.
type Observer interface {
	WaitBegun(ctx context.Context, w Wait)
	WaitEnded(ctx context.Context, w WaitEnd)
	// HoldEnded is called with the Tickets' mu, as is Overran unless the function has returned: they call nobody back.
	HoldEnded(h HoldEnd)
	Overran(o Overrun)
}

// Wait is a call of Acquire, Try or Resume.
type Wait struct {
	Kind  *Kind
	Name  string
	Try   bool
	Began time.Time
}

// Outcome is what came of a wait.
type Outcome int

// The outcomes: it holds, somebody was in the way of a try, the context of the call ended, the Session did, etcd refused.
const (
	Got Outcome = iota
	Busy
	Canceled
	Closed
	Failed
	outcomes
)

// WaitEnd is what came of a Wait.
type WaitEnd struct {
	Wait
	Outcome Outcome
	Ticket  *Ticket    // that holds
	Memory  bool       // no answer of etcd stood between the last hold and this one
	By      *Contender // who was in the way, where that is known
	In      string     // in the queue of which name
	Err     error
}

// Ending is how a hold ended.
type Ending int

// The endings: given back, with the Session, at the deadline of its lease, since etcd said that there is no such lease,
// since the ticket was gone.
const (
	Released Ending = iota
	SessionEnded
	Deadline
	Revoked
	Removal
	endings
)

// HoldEnd is the end of a hold.
type HoldEnd struct {
	Ticket *Ticket
	Held   time.Duration
	Ending Ending
}

// Counts are numbers since the beginning, and of the moment.
type Counts struct {
	Waiting, Held, Leaving, Working int
	Waits                           [outcomes]uint64
	Memory                          uint64 // of those that got their hold, without etcd
	Holds                           [endings]uint64
}

// tally is where Counts come from.
type tally struct {
	waiting atomic.Int64
	waits   [outcomes]atomic.Uint64
	memory  atomic.Uint64

	// Guarded by the Tickets' mu.
	held, leaving, working int
	holds                  [endings]uint64
}

// Counts returns the numbers.
func (q *Tickets) Counts() Counts {
	c := Counts{Waiting: int(q.tally.waiting.Load()), Memory: q.tally.memory.Load()}
	for i := range c.Waits {
		c.Waits[i] = q.tally.waits[i].Load()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c.Held, c.Leaving, c.Working, c.Holds = q.tally.held, q.tally.leaving, q.tally.working, q.tally.holds
	return c
}

// waitBegun is the beginning of a wait.
func (q *Tickets) waitBegun(ctx context.Context, k *Kind, name string, try bool) (w Wait) {
	q.tally.waiting.Add(1)
	if q.observer != nil {
		w = Wait{Kind: k, Name: name, Try: try, Began: time.Now()}
		q.observer.WaitBegun(ctx, w)
	}
	return w
}

// waitEnded is its end.
func (q *Tickets) waitEnded(ctx context.Context, w Wait, t *Ticket, by *Contender, in string, err error) {
	q.tally.waiting.Add(-1)
	outcome := Failed
	switch {
	case t != nil:
		outcome = Got
		if t.memory {
			q.tally.memory.Add(1)
		}
	case err == nil:
		outcome = Busy
	case q.over() != nil && errors.Is(err, q.over()):
		outcome = Closed
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		outcome = Canceled
	}
	q.tally.waits[outcome].Add(1)
	if q.observer != nil {
		q.observer.WaitEnded(ctx, WaitEnd{
			Wait: w, Outcome: outcome, Ticket: t, Memory: t != nil && t.memory, By: by, In: in, Err: err,
		})
	}
}

// beginHoldLocked is the beginning of a hold.
func (t *Ticket) beginHoldLocked() {
	q := t.group.q
	t.holds = true
	q.tally.held++
	if q.observer != nil {
		t.since = lease.Now()
	}
}

// endHoldLocked is the end of a hold, as the ticket goes from held to another state; or with the Session, whose tickets
// keep theirs.
func (t *Ticket) endHoldLocked(to state) {
	if !t.holds {
		return
	}
	t.holds = false
	q := t.group.q
	q.tally.held--
	ending := t.endingLocked(to)
	q.tally.holds[ending]++
	if t.work == working || q.observer != nil {
		at := lease.Now()
		if t.lease.Context().Err() != nil {
			over, _ := t.lease.Ended()
			at = min(at, over)
		}
		if t.work == working {
			t.runsOnLocked(at)
		}
		if q.observer != nil {
			q.observer.HoldEnded(HoldEnd{Ticket: t, Held: max(at.Sub(t.since), 0), Ending: ending})
		}
	}
	if t.all != nil { // their hold is one, though the others are in etcd until its release
		for _, o := range t.all.set {
			o.endHoldLocked(to)
		}
	}
}

// endingLocked is how a hold ended. Neither the hold nor its lease is asked: asking may end the lease.
func (t *Ticket) endingLocked(to state) Ending {
	cause, over := context.Cause(t.hold.Context), context.Cause(t.lease.Context())
	if cause == nil {
		cause = over // which ends the hold in this very moment
	}
	switch {
	case cause == nil && to == gone: // Removed: the hold is told next
		return Removal
	case cause == nil, cause == t.kind.Released: //nolint:errorlint // this very value
		return Released
	case !errors.Is(cause, lease.ErrLost):
		return SessionEnded
	case over == nil:
		return Removal
	}
	if _, byEtcd := t.lease.Ended(); byEtcd {
		return Revoked
	}
	return Deadline
}

// EndHolds is for the end of the Session, which ended l: every hold under it has ended.
func (q *Tickets) EndHolds(l *Lease) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range l.tickets {
		t.endHoldLocked(gone)
	}
}

// Name is the name that the ticket queues for.
func (t *Ticket) Name() string { return t.group.Name }

// Kind is what kind of ticket it is.
func (t *Ticket) Kind() *Kind { return t.kind }
