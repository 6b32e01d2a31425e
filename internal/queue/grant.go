package queue

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file makes a ticket a hold.

// CheckAfter is how long a hold must last before the check of checkSoonLocked is made.
const CheckAfter = 3 * time.Millisecond

// grant makes the ticket, which is first in its queue, a hold; of several that were put together, the last to become first
// makes all of them one. It fails with errRequeue if a ticket or the lease has gone meanwhile: a lease past its deadline grants
// nothing, whatever etcd still shows. Nor does a Session that has begun to end: from then on, what it holds only becomes less.
func (t *Ticket) grant() error { return t.grantThenCheck(0) }

// grantThenCheck grants on the strength of the predecessor's deletion at revision at, and asks afterwards whether the
// own ticket was still there: a deletion of the whole prefix removes both in one revision. Reading first would cost a
// round trip on every handoff.
//
// Of several tickets all are asked for, as of the latest revision at which one became first: one that did so long ago has no
// watch since. Where that is the revision of their put, all were first then.
func (t *Ticket) grantThenCheck(at int64) error {
	q := t.group.q
	if !t.lease.Alive() {
		return errRequeue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if all := t.all; all != nil {
		t.turn.near = generation{}
		all.at = max(all.at, at)
		all.behind = slices.DeleteFunc(all.behind, func(o *Ticket) bool { return o == t })
		if at = all.at; len(all.behind) > 0 {
			return nil
		}
	}
	err := t.grantLocked()
	if err == nil && at > t.rev {
		t.checkSoonLocked(at)
	}
	return err
}

func (t *Ticket) grantLocked() error {
	q, s := t.group.q, t.set()
	if q.tasks.Closing().Err() != nil || slices.ContainsFunc(s, func(t *Ticket) bool { return t.state != waiting }) {
		return errRequeue
	}
	hold := lease.NewHold(t.lease.Lease, t.kind.Released)
	for _, t := range s {
		t.moveLocked(held)
		t.hold = hold
		t.turn = nil
		t.group.watchOthersLocked()
	}
	select {
	case q.held <- struct{}{}:
	default:
	}
	return nil
}

// handoff is the grant in memory: t takes the hold from pred, its predecessor of the same Session, whose deletion is not
// confirmed yet.
//
// Why it is safe: pred held alone, so nobody was ahead of it, and any other contender's create revision is higher than
// t's; so while t's ticket is in etcd, nothing is ahead of it but pred's, which is released. Both are on the same lease, so
// a crash removes both. A guard that was given out would stay true until pred's deletion is confirmed: then it must be
// waited for. Elections always wait, since everybody would still see pred as the leader. A hold that was lost is not
// handed off.
func (t *Ticket) handoff(pred *Ticket) (done bool, err error) {
	q := t.group.q
	if !t.lease.Alive() {
		return false, errRequeue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if pred.state != left || !pred.handsOffLocked(t) {
		return false, nil
	}
	pred.handedOff, t.memory = true, true
	if err := t.grantLocked(); err != nil {
		return true, err
	}
	t.checkSoonLocked(0) // nobody has looked whether t's ticket is still in etcd
	return true, nil
}

// handsOffLocked reports whether the hold of t, which has left, goes on in memory as next's.
func (t *Ticket) handsOffLocked(next *Ticket) bool {
	return t.letsInNext() && !t.guarded && t.kind.Handoff && !t.handedOff &&
		next != nil && next.kind.Handoff && next.kind.Class.alone() && next.state == waiting && next.draining() == nil
}

// letsInNext is the rule for a ticket that left: whether the one behind it holds then, without a look at the queue. It
// does if this one held alone to the end; beside one that shares its turn there may be others.
func (t *Ticket) letsInNext() bool { return t.byHolder && t.kind.Class.alone() }

// checkSoonLocked is for a hold that began before anybody looked for its tickets: somebody may have removed one. It holds
// if they were there as of revision at, or, if at is 0, are there now. A hold that is released before the check is due needs
// none, because its deletion tells: it finds the ticket, or the release says that the hold was lost.
func (t *Ticket) checkSoonLocked(at int64) {
	t.checking = time.AfterFunc(CheckAfter, func() { t.group.q.tasks.Go(func() { t.checkAt(at) }) })
}

func (t *Ticket) checkAt(at int64) {
	q := t.group.q
	ctx, cancel := context.WithCancel(q.tasks.Back())
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)() // nobody wants to know any more
	if t.ask(ctx, at, clientv3.WithKeysOnly()) != nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	t.checking = nil
}
