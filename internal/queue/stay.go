package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file releases a hold and leaves its place taken for a while, also when the process ends: the ticket's key moves to a
// lease of its own, which nobody renews. etcd keeps the key's create revision, so nobody's place in the queue changes.
//
// What could go wrong is that somebody takes the key for a hold again, since it has our value and our name:
//
//   - The ticket stays registered, as staying, until the key is gone, so that no other gets its name: the put of the next
//     one of that name would find the key and take it for its own. The checks beside the renewals tell when it is gone.
//   - Nobody takes a staying ticket for one of this Session: nothing is handed off from it, and it is waited for by a watch.
//   - The guard of the hold compares the revision of the value, which the move changes.
//   - No clean-up deletes it by its name. A deletion by its revision follows only if the time is over, or etcd refuses.
//
// A request that arrives late does no harm: it names the create revision, and the lease that the key is on before the move,
// and all of them move it to the same lease. So none takes back what another Session has taken up since. A lease whose
// grant was not answered has no keys and ends by itself. The lease is never revoked.

// stay is how the move went.
type stay struct {
	done chan struct{} // closed when that is known
	// Written before done is closed.
	stays   bool  // the key has moved
	refused error // what etcd said that no retry will mend; the ticket is deleted
}

// over reports whether it is known.
func (s *stay) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// ReleaseAfter ends the hold, and leaves the place taken until d has passed. It returns when etcd has confirmed that; what
// else it returns is as for Release, or what etcd refused it with.
func (t *Ticket) ReleaseAfter(ctx context.Context, d time.Duration) error {
	now := lease.Now()
	until := now.Add(d)
	if until < now { // it overflows
		until = math.MaxInt64
	}
	enough := time.NewTimer(t.lease.Left())
	defer enough.Stop()
	if lost := t.hold.Release(); lost != nil {
		t.Leave()
		return lost
	}
	if t.startStaying(until) {
		return t.awaitStay(ctx, enough.C)
	}
	return t.awaitGone(ctx, enough.C)
}

// startStaying begins the move; false if the ticket has gone meanwhile.
func (t *Ticket) startStaying(until lease.Instant) bool {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.lease.Context().Err() != nil {
		t.startLeavingLocked()
		return false
	}
	if !t.moveLocked(staying) {
		return false
	}
	s := &stay{done: make(chan struct{})}
	work, cancel := context.WithCancel(context.Background())
	t.stay = s
	q.tasks.BeginRelease(work) // Close waits for it, and Shutdown, by AwaitReleased
	begun := q.tasks.Go(func() {
		defer cancel()
		defer q.tasks.End(work)
		t.keep(s, until)
		q.mu.Lock()
		defer q.mu.Unlock()
		close(s.done)
		t.tellLocked()
	})
	if !begun { // the Session is closed: the revoked lease takes the ticket
		q.tasks.End(work)
		cancel()
		t.goneLocked(0)
	}
	return begun
}

// keep moves the ticket's key to a lease that lasts until then, for as long as it takes.
func (t *Ticket) keep(s *stay, until lease.Instant) {
	q := t.group.q
	var pace rpc.Pace
	var id clientv3.LeaseID
	for n := 0; t.status().state == staying; n++ {
		rest := until.Sub(lease.Now())
		if rest <= 0 {
			t.leaveIf(staying)
			return
		}
		ctx, cancel := context.WithTimeout(q.tasks.Back(), q.c.AttemptTimeout(n))
		if id == 0 {
			id = t.grantRest(ctx, rest, s)
		}
		if id != 0 {
			id = t.move(ctx, id, s)
		}
		cancel()
		switch {
		case s.stays:
			return
		case s.refused != nil:
			t.leaveIf(staying)
			return
		case !pace.Wait(q.tasks.Back()):
			return
		}
	}
}

// maxTTL is the longest that etcd grants, in seconds: some 285 years.
const maxTTL = 9_000_000_000

// grantRest asks for a lease that lasts as long as what is left; 0 if there is none yet.
func (t *Ticket) grantRest(ctx context.Context, rest time.Duration, s *stay) clientv3.LeaseID {
	seconds := min(int64((rest-1)/time.Second)+1, maxTTL)
	resp, err := t.group.q.c.Grant(ctx, seconds)
	if err == nil {
		return resp.ID
	}
	t.refuse(s, err)
	return 0
}

// move puts the key on the lease; it returns the lease that is to be used from now on, 0 if another has to be granted.
func (t *Ticket) move(ctx context.Context, id clientv3.LeaseID, s *stay) clientv3.LeaseID {
	q := t.group.q
	resp, err := q.c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev), clientv3.Compare(clientv3.LeaseValue(t.key), "=", t.lease.ID)).
		Then(clientv3.OpPut(t.key, t.value, clientv3.WithLease(id))).
		Else(clientv3.OpGet(t.key)).
		Commit()
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case err == nil && resp.Succeeded:
		s.stays = true
	case err == nil:
		t.foundLocked(generationOf(resp.Responses[0].GetResponseRange().Kvs, t.key, t.rev), id, resp.Header.Revision, s)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return 0 // the time is nearly over
	default:
		t.deletions.unknown = true // it may be there, for its time: then nobody else has removed the ticket
		t.refuse(s, err)
	}
	return id
}

// foundLocked takes in, as of revision at, that the ticket is not as it was.
func (t *Ticket) foundLocked(kv *mvccpb.KeyValue, id clientv3.LeaseID, at int64, s *stay) {
	switch {
	case kv == nil:
		t.goneLocked(at) // who removed it, awaitGone tells
	case kv.Lease == int64(id):
		s.stays = true // an earlier attempt, or another copy, has done it
	case kv.Lease == 0:
		s.refused = errors.New("somebody has taken the ticket off its lease")
	default: // another Session has taken it up, see Removed
		s.refused = lease.ErrLost
		t.passedOnLocked(t.rev)
	}
}

// refuse takes in an error.
func (t *Ticket) refuse(s *stay, err error) {
	if !rpc.Transient(err) && t.group.q.tasks.Back().Err() == nil {
		s.refused = err
	}
}

// awaitStay waits until it is known how the move went.
func (t *Ticket) awaitStay(ctx context.Context, enough <-chan time.Time) error {
	q := t.group.q
	s := t.stay
	select {
	case <-s.done:
	case <-ctx.Done():
		return unconfirmed(ctx.Err(), q.c.Why(q.leases.LastErr()))
	case <-enough:
		return unconfirmed(errors.New("the hold would have ended by now"), q.c.Why(q.leases.LastErr()))
	}
	switch {
	case s.stays:
		return nil
	case errors.Is(s.refused, lease.ErrLost):
		return s.refused
	case s.refused != nil:
		return fmt.Errorf("released at once, since etcd refuses to keep it: %w", s.refused)
	}
	return t.awaitGone(ctx, enough)
}
