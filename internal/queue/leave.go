package queue

import (
	"context"
	"slices"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes tickets out of the queue. All ways out, here and elsewhere:
//
//	Leave, leave, leaveLocked  released or given up: its deletion is sent until it is confirmed (deletedLocked in delete.go)
//	giveUp                     before it held: after a failure, or since somebody is in the way
//	Removed                    somebody else removed it, or took it up
//	foundTaken (enqueue.go)    its own put tells that somebody else took it up
//	Drop, Clear                its lease is over (tickets.go, clear.go)
//	startStaying (stay.go)     released, and its place stays taken for a while; foundLocked: it has gone meanwhile
//	takeUpLocked (state.go)    it idled, and the next hold is another ticket in its place
//
// So a caller that runs out of patience leaves nothing behind.

// Leave takes the ticket, and those that were put with it, out of the queue: a release if it is held and alive, giving up
// otherwise. It returns at once; the deletion is sent in the background and ends with the ticket being gone.
func (t *Ticket) Leave() { t.set().leave(context.Background(), false) }

// leave is Leave. now is for a holder that waits for the deletion: it makes the first attempt itself, which saves two
// changes of goroutine, and leaves the rest to the background.
func (s set) leave(ctx context.Context, now bool) {
	l, q := s[0].lease, s.of()
	l.Alive() // ends it if it is over, which may not be done under mu
	var due []*group
	q.mu.Lock()
	for _, t := range s {
		if slices.Contains(inQueue, t.state) && t.startLeavingLocked() {
			due = append(due, t.group)
		}
	}
	if !now {
		q.flushLocked(due...)
	}
	q.mu.Unlock()
	if !now || len(due) == 0 {
		return
	}
	// With the lease's end the tickets go by themselves.
	rest, _ := q.attempt(ctx, min(q.c.AttemptTimeout(0), l.Left()), due)
	if len(rest) > 0 {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.flushLocked(rest...)
		if ctx.Err() == nil {
			q.flushBesideLocked(rest, maxFlushes)
		}
	}
}

// inQueue are the states in which there is something to leave.
var inQueue = []state{sending, waiting, held, idle}

// leaveIf leaves if the ticket is in this state.
func (t *Ticket) leaveIf(in state) {
	t.lease.Alive() // ends it if it is over, which may not be done under mu
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.state == in {
		t.leaveLocked()
	}
}

// leaveLocked leaves, with the deletion in the background.
func (t *Ticket) leaveLocked() {
	if t.startLeavingLocked() {
		t.group.q.flushLocked(t.group)
	}
}

// startLeavingLocked puts the ticket among those to delete, and reports whether the caller has to flush them.
func (t *Ticket) startLeavingLocked() bool {
	if t.lease.Context().Err() != nil {
		// The lease is over for everything; what etcd still has of it goes when it is revoked or expires, or, where this
		// Session does not revoke it, with Clear.
		if t.mayBeOursLocked() {
			t.lease.left = append(t.lease.left, t.remainsLocked())
		}
		t.goneLocked(0)
		return false
	}
	t.byHolder = t.state == idle || t.state == held && !t.hold.Lost()
	if t.state == sending {
		t.unansweredLocked()
		if t.claimed {
			t.lease.claims[t.key] = true
		}
	}
	t.moveLocked(left)
	// Nobody can gain from an early deletion when the hold goes on to a ticket of this Session: it is sent with
	// the ones after it. In every other case somebody may be waiting for it.
	return t.group.flushDueLocked(!t.handsOffLocked(t.next))
}

// giveUp leaves after a failure; err is nil if it was none, and tickets that are not known to be in etcd were never put. A
// put that etcd refused for good is not there: there is nothing to delete, and no permission to. Should an earlier attempt of
// it have arrived unanswered, the sweep finds it.
func (s set) giveUp(err error) {
	q := s.of()
	q.mu.Lock()
	for _, t := range s {
		if t.state == sending && !rpc.Transient(err) {
			if err != nil {
				t.lateLocked()
			}
			t.goneLocked(0)
		}
	}
	q.mu.Unlock()
	s.leave(q.tasks.Back(), false)
}

// Removed says that somebody else removed the ticket, as of revision at; 0 where that is not known, or where another
// Session has taken it up.
func (t *Ticket) Removed(at int64) {
	q := t.group.q
	q.mu.Lock()
	if !t.liveLocked() {
		q.mu.Unlock()
		return
	}
	hold := t.hold
	if t.state == staying {
		hold = nil // it was released: this is the end of its time
	}
	if at == 0 {
		t.passedOnLocked(t.rev)
	} else {
		t.goneLocked(at)
	}
	for _, o := range t.set() {
		o.recheckLocked()
	}
	q.mu.Unlock()
	defer t.dropSlots()
	if hold != nil {
		hold.Lose()
		q.log.Warn("etcdlock: ticket removed or taken up by others, hold lost", "name", Short(t.group.Name),
			"ticket", Short(t.key), "token", t.rev)
	}
}
