package queue

import (
	"context"
	"errors"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file deletes the tickets that have left. A flush is a run of attempts for one name, or for those that were taken
// together, in a goroutine of the Session (the first of them may be the releasing caller's own), that goes on until etcd has
// confirmed or the lease is over.

// maxFlushes is how many flushes of one name may be under way. More than one is for deletions that somebody may wait for
// while an attempt hangs.
const maxFlushes = 8

// flushDueLocked decides whether the tickets to delete need a flush of their own now; the caller then makes it. Otherwise
// the flush under way takes them when it comes back, unless it is urgent. Each flush carries every deletion that is not
// confirmed, the oldest first: a later ticket must not be seen to go before an earlier one that was released before it.
func (g *group) flushDueLocked(urgent bool) bool {
	due := g.flushes == 0 || urgent && g.flushes < maxFlushes && len(g.toDelete) <= g.q.c.NestedPartSize()
	if due {
		g.flushes++
	}
	return due
}

// flushLocked starts a flush of some names in the background.
func (q *Tickets) flushLocked(groups ...*group) {
	if len(groups) > 0 && !q.tasks.Go(func() { q.flush(groups) }) {
		endFlushesLocked(groups) // the Session is closed: the revoked lease takes the tickets
	}
}

func endFlushesLocked(groups []*group) {
	for _, g := range groups {
		g.flushes--
	}
}

// flushBesideLocked starts one flush more after an attempt that was not answered, if they are not too many then: of two
// that are sent at once, one meets another member than the one that may be frozen. See rpc.Retry.
func (q *Tickets) flushBesideLocked(groups []*group, most int16) {
	var beside []*group
	for _, g := range groups {
		if errors.Is(g.lastErr, rpc.ErrUnanswered) && g.flushes < most {
			g.flushes++
			beside = append(beside, g)
		}
	}
	q.flushLocked(beside...)
}

// flush deletes until nothing is left to delete.
func (q *Tickets) flush(groups []*group) {
	var pace rpc.Pace
	for n := 0; ; n++ {
		var err error
		groups, err = q.attempt(q.tasks.Back(), q.c.AttemptTimeout(n), groups)
		switch {
		case len(groups) == 0:
			return
		case err == nil:
			n = -1
			pace.Reset()
		case len(groups) > 1 && !rpc.Transient(err): // it may be for one of them: that keeps no other
			q.mu.Lock()
			for _, g := range groups {
				q.flushLocked(g)
			}
			q.mu.Unlock()
			return
		case !pace.Wait(q.tasks.Back()):
			q.mu.Lock()
			endFlushesLocked(groups)
			q.mu.Unlock()
			return
		default:
			q.mu.Lock()
			q.flushBesideLocked(groups, 2)
			q.mu.Unlock()
		}
	}
}

// attempt sends one Txn of deletions. It returns the groups whose flush has not ended: there is more to do, or it failed.
func (q *Tickets) attempt(ctx context.Context, limit time.Duration, groups []*group) (rest []*group, err error) {
	q.mu.Lock()
	var batch []*Ticket
	for _, g := range groups {
		g.dropDeletedLocked()
		room := q.c.NestedPartSize() - len(batch)
		batch = append(batch, g.toDelete[:min(len(g.toDelete), room)]...)
	}
	if len(batch) == 0 {
		endFlushesLocked(groups)
		q.mu.Unlock()
		return nil, nil
	}
	ops := make([]clientv3.Op, len(batch))
	for i, t := range batch {
		t.deletions.out++ // under way from now on
		ops[i] = t.deletion()
	}
	q.mu.Unlock()

	done := q.delete(ctx, limit, ops)
	done.several = len(groups) > 1

	q.mu.Lock()
	defer q.mu.Unlock()
	q.deletedLocked(batch, done)
	switch {
	case done.tooMuch:
		return groups, nil // again, with fewer
	case done.err != nil:
		return groups, done.err
	}
	for _, g := range groups {
		g.dropDeletedLocked()
		if slices.ContainsFunc(g.toDelete, func(t *Ticket) bool { return t.deletions.out == 0 }) {
			rest = append(rest, g)
		} else {
			g.flushes-- // what is left, other flushes have under way, and repeat
		}
	}
	return rest, nil
}

// deleted is what came of one request to delete tickets.
type deleted struct {
	found   []bool // for each, whether it was there
	at      int64  // the revision
	late    bool   // answered so late that the etcd client may have sent it twice
	tooMuch bool   // refused for its size
	several bool   // of several names: a refusal may be for one of them, and says nothing of the others
	err     error
}

// delete sends deletions, each of which is a Txn, in one request.
func (q *Tickets) delete(ctx context.Context, limit time.Duration, ops []clientv3.Op) (d deleted) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := lease.Now()
	if len(ops) == 1 {
		var resp clientv3.OpResponse
		if resp, d.err = q.c.Do(ctx, ops[0]); d.err == nil {
			d.found, d.at = []bool{resp.Txn().Succeeded}, resp.Txn().Header.Revision
		}
	} else {
		var resp *clientv3.TxnResponse
		if resp, d.err = q.c.Txn(ctx).Then(ops...).Commit(); d.err == nil {
			for _, r := range resp.Responses {
				d.found = append(d.found, r.GetResponseTxn().GetSucceeded())
			}
			d.at = resp.Header.Revision
		}
	}
	d.late = q.c.Late(lease.Now().Sub(start))
	d.tooMuch = q.c.TooMuch(d.err, len(ops))
	return d
}

// deletedLocked takes in what came of it.
func (q *Tickets) deletedLocked(batch []*Ticket, done deleted) {
	for i, t := range batch {
		t.group.lastErr = rpc.Unanswered(done.err)
		d := &t.deletions
		d.out--
		switch {
		case done.tooMuch: // refused, so nothing of it is under way
		case done.err == nil:
			if done.found[i] {
				d.found = true
			} else if done.late {
				d.unknown = true
			}
			at := done.at
			if t.rev == 0 && !d.found {
				at = 0 // a put or a claim that was not answered: the ticket may be there all the same, as another Session's
			}
			t.goneLocked(at)
			if d.out == 0 && !d.found && !d.unknown {
				q.leases.CheckNow() // somebody removed it: also the one to which the hold went in memory?
			}
		case rpc.Transient(done.err):
			d.unknown = true
		case !done.several:
			d.refused = done.err // tried again all the same: permissions come back
		}
		t.tellLocked()
	}
}

// deletions is what is known of the requests to delete one ticket. Several can be under way at once, and one answer
// alone tells little: the ticket is gone, but who removed it shows only when all have been answered.
type deletions struct {
	out     int32 // under way
	found   bool  // one of them found the ticket
	unknown bool  // one may have found it: it was not answered, or so late that the etcd client may have repeated it
	refused error // what etcd said that no retry will mend
}

// deletion removes this ticket, and no later one of the same name however late it arrives. A ticket whose put has not
// been answered has no revision to go by; nor will there be a later one of its name. But another Session may have taken it up,
// or may do so when this one has ended and the deletion is still under way: then it is on that one's lease.
func (t *Ticket) deletion() clientv3.Op {
	if t.rev == 0 {
		return remains{generation: generation{key: t.key}, put: !t.claimed}.deletion(t.lease.ID)
	}
	exists := clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)
	slots := t.slotDeletions() // also where the ticket is gone
	return clientv3.OpTxn([]clientv3.Cmp{exists}, append([]clientv3.Op{clientv3.OpDelete(t.key)}, slots...), slots)
}

// dropDeletedLocked drops from the list what is confirmed, and what went with its lease.
func (g *group) dropDeletedLocked() {
	rest := g.toDelete[:0]
	for _, t := range g.toDelete {
		if t.state == left {
			rest = append(rest, t)
		}
	}
	clear(g.toDelete[len(rest):])
	g.toDelete = rest
}
