package queue

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes up a ticket that an earlier Session left in etcd.
//
// A claim is one Txn: if the ticket is as it was written at the revision that the caller names, it is written again, with the
// same value, on the lease of this Session. That makes another revision of it, so nobody else can claim it by the one that
// it had. Its create revision stays, and with it its place and its token. Who held by it before finds at its next check that
// somebody has written it (see takenLocked), and its hold ends.
//
// A claim whose answer is lost may have been made, or be made later. On a lease of this Session's own that shows: nobody else
// puts a key there. So the ticket is deleted if it is on that lease, now or whenever a sweep finds it there. On a shared
// lease it does not show, and the ticket stays what it was before, on the lease where it was.

// ErrTaken says that a ticket is not there, or was written since.
var ErrTaken = errors.New("etcdlock: taken up already, or gone")

// errUnsettled says that a deletion may be under way which would meet the ticket on this lease.
var errUnsettled = errors.New("an earlier Resume of this ticket by this Session was not answered, and what cleans up after it " +
	"may still arrive: a Session with another lease can take it up")

// Resume claims the ticket key, as it was written at revision rev, and waits for its turn, if it does not hold already.
func (q *Tickets) Resume(ctx context.Context, k *Kind, name, key string, rev int64) (t *Ticket, by *Contender, err error) {
	w := q.waitBegun(ctx, k, name, false)
	t, by, err = q.resume(ctx, k, name, key, rev)
	q.waitEnded(ctx, w, t, by, name, err)
	return t, by, err
}

func (q *Tickets) resume(ctx context.Context, k *Kind, name, key string, rev int64) (t *Ticket, by *Contender, err error) {
	l, err := q.usable(ctx)
	if err != nil {
		return nil, nil, err
	}
	if t, err = q.claimedTicket(l, k, name, key); err != nil {
		return nil, nil, err
	}
	if q.over() != nil {
		set{t}.giveUp(nil)
		return nil, nil, q.over()
	}
	if err = t.claim(ctx, rev); err != nil {
		t.giveUpClaim(err)
	} else {
		var a ahead
		if a, err = t.look(ctx, 0); err == nil {
			err = t.wait(ctx, a)
		}
		if err == nil {
			return t, nil, nil
		}
		set{t}.giveUp(err)
		if ctx.Err() != nil {
			by = t.blocker()
		}
	}
	switch {
	case l.Context().Err() != nil:
		err = lease.ErrLost
	case errors.Is(err, errRequeue):
		err = ErrTaken // somebody removed it
	}
	return nil, by, q.why(ctx, err)
}

// claimedTicket registers a ticket before its claim is sent. One that this Session has or had named itself it does not take
// up: what cleans up after a put that was not answered deletes it by its name. Nor, for the same reason, one of which a claim
// was given up: what came of that is deleted by its lease.
func (q *Tickets) claimedTicket(l *Lease, k *Kind, name, key string) (*Ticket, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case l.claims[key]:
		return nil, errUnsettled
	case l.tickets[key] != nil, l.numberLocked(key) > 0:
		return nil, ErrTaken // by this Session itself
	}
	if !l.shared {
		delete(l.passedOn, key) // it comes back
	}
	g := q.groupLocked(name)
	t := &Ticket{group: g, lease: l, kind: k, claimed: true, after: g.goneAt, key: key}
	g.addLocked(t)
	return t, nil
}

// claim makes the ticket this Session's. Where it finds the ticket on a lease of our own, this very claim was made: by an
// attempt that was not answered, or by a copy that the etcd client has sent by itself. It is made once more, by the revision
// that it has now: if somebody who was given our lease was first, that one notices.
func (t *Ticket) claim(ctx context.Context, rev int64) error {
	ctx, release := t.lease.bound(ctx)
	defer release()
	for {
		resp, err := t.claimAt(ctx, rev)
		if err != nil {
			return t.leaseGone(err)
		}
		kvs := resp.Responses[len(resp.Responses)-1].GetResponseRange().Kvs
		switch {
		case resp.Succeeded:
			t.claimedAs(kvs[0])
			return nil
		case t.lease.shared, len(kvs) == 0, clientv3.LeaseID(kvs[0].Lease) != t.lease.ID:
			return ErrTaken
		}
		rev = kvs[0].ModRevision
	}
}

// claimAt claims the ticket as it was written at rev.
func (t *Ticket) claimAt(ctx context.Context, rev int64) (*clientv3.TxnResponse, error) {
	c := t.group.q.c
	return rpc.RetryAlone(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		start := lease.Now()
		resp, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(t.key), "=", rev)).
			Then(clientv3.OpPut(t.key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(t.lease.ID)), clientv3.OpGet(t.key)).
			Else(clientv3.OpGet(t.key)).
			Commit()
		if err != nil || c.Late(lease.Now().Sub(start)) {
			t.late() // this attempt may arrive later, as that of a put may: see enqueue
		}
		return resp, err
	})
}

// claimedAs says that the ticket is this Session's, as kv.
func (t *Ticket) claimedAs(kv *mvccpb.KeyValue) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.placedLocked(kv.CreateRevision)
	t.mod, t.version, t.value = kv.ModRevision, kv.Version, string(kv.Value)
}

// giveUpClaim is for a claim that was not made, as far as is known.
func (t *Ticket) giveUpClaim(err error) {
	if errors.Is(err, ErrTaken) || t.lease.shared {
		err = nil // the ticket is another's, or is where it was
	}
	set{t}.giveUp(err)
}

// lookWhose asks etcd who has the ticket. The checks beside the renewals read keys alone, which have no lease: but they show
// that somebody has written.
func (t *Ticket) lookWhose() {
	ctx, cancel := context.WithTimeout(t.lease.Context(), t.lease.Span()/3)
	defer cancel()
	_ = t.ask(ctx, 0) // with an error, the next check finds it again
}

func (t *Ticket) taken(kv *mvccpb.KeyValue) bool {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.takenLocked(kv)
}

// takenLocked reports whether kv, which is this ticket, shows that another Session has taken it up: nobody else puts it on
// another lease, or writes it on a lease that others use. On a lease of our own it stays ours (see keepOurs), as it does where
// somebody takes it off its lease by hand. One that stays is on its way to another lease by our own hand, and for nobody to take
// up.
func (t *Ticket) takenLocked(kv *mvccpb.KeyValue) bool {
	on := clientv3.LeaseID(kv.Lease)
	return t.state != staying && on != 0 && kv.ModRevision > t.mod && (on != t.lease.ID || t.lease.shared && !t.byUsLocked(kv))
}

// keepOurs is for a ticket that somebody has written on a lease of our own, as kv: by hand, or a Session that was given that
// lease, and has taken it up. It is written once more, as it is, so that such a Session notices, and finds its hold lost: of two
// who believe to hold by one ticket, it is whoever made the lease that keeps it. Without an answer, the next check does it again.
func (t *Ticket) keepOurs(kv *mvccpb.KeyValue) {
	q := t.group.q
	q.mu.Lock()
	ours := t.liveLocked() && t.state != staying && clientv3.LeaseID(kv.Lease) == t.lease.ID && kv.ModRevision > t.mod && !t.byUsLocked(kv)
	q.mu.Unlock()
	if !ours {
		return
	}
	q.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(t.lease.Context(), t.lease.Span()/3)
		defer cancel()
		resp, err := q.c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(t.key), "=", kv.ModRevision)).
			Then(clientv3.OpPut(t.key, "", clientv3.WithIgnoreValue(), clientv3.WithLease(t.lease.ID))).
			Commit()
		q.mu.Lock()
		defer q.mu.Unlock()
		if err == nil && resp.Succeeded && resp.Header.Revision > t.mod {
			t.mod, t.version = resp.Header.Revision, kv.Version+1
			if t.kind.Elects { // that of others never changes for us
				t.value = string(kv.Value)
			}
		}
	})
}

// byUsLocked reports whether kv can be what a Proclaim has written that was not answered. All of these name the same revision
// that they replace, so one of them was made at most. (Who takes it up writes the value again that is there: of a Proclaim of
// that same value it cannot be told before the next one.)
func (t *Ticket) byUsLocked(kv *mvccpb.KeyValue) bool {
	return kv.Version == t.version+1 && slices.Contains(t.pending, string(kv.Value))
}
