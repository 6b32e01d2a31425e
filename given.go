package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file is for leases that the Session did not make (WithLease).

// WithLease makes the Session use a lease that exists, instead of one of its own: one that others use too, or that an earlier
// Session left. From then on it is the Session's, which renews it and revokes it in Close, with all that anybody has on it.
//
//   - NewSession renews the lease itself before it returns, and nothing is relied on before. A lease that is gone, then or
//     by the time that this renewal is answered, is ErrLeaseLost. How long the lease lives is what etcd says in that
//     renewal. Members with different election timeouts may tell more than was asked for: with WithTTL the smaller counts.
//   - When the lease is lost, its holds are, and the Session is over: it has no right to another lease. Calls return
//     ErrLeaseLost. It deletes the tickets that it may have left, until Close as long as that takes, but does not revoke the
//     lease: others may still renew it.
//   - What is on the lease already stays as it is, and lives as long as the lease does: tickets of earlier Sessions too.
//     Mutex.Resume and Election.Resume take up one of them. Several Sessions on one lease exclude each other as any do.
//
// To go on after a restart, a lease of its own is the better way: Resume moves a ticket over to it, and what else was left
// goes with the old lease.
func WithLease(id clientv3.LeaseID) Option {
	return func(o *options) error {
		if id == clientv3.NoLease {
			return errors.New("etcdlock: lease 0 is no lease: leave WithLease out for one of the Session's own")
		}
		o.lease = id
		return nil
	}
}

// WithoutLease makes a Session that has no lease, and costs etcd nothing: it can ask, and take nothing. Leader, Observe,
// Holder and Waiters work; Lock, TryLock and Campaign return ErrNoLease. NewSession then asks nothing of etcd.
func WithoutLease() Option {
	return func(o *options) error {
		o.none = true
		return nil
	}
}

// firstRenewal makes of a lease that somebody else granted one that can be relied on: by a renewal of our own. What its
// earlier user was told of it counts for nothing, nor when.
//
// It is a question for the time that is left, a linearizable read and after its answer a keepalive. S is when the read was
// about to be sent, and the rules are those of every renewal (renew.go). The deadline in force, before which the answers must
// be here, is the end of the time that is left: etcd can acknowledge a renewal of a lease that it has decided to revoke, and
// such a decision cannot have been made before that end. If it is not met, the lease may be about to go, and has been renewed
// all the same; then a decision that was made has some time to take effect, and all begins anew.
func firstRenewal(ctx context.Context, client *rpc.Client, tickets *queue.Tickets, o options) (*lease.Lease, error) {
	var pace rpc.Pace
	var last error
	for n := 0; ; n++ {
		actx, cancel := context.WithTimeout(ctx, 2*time.Second<<min(n, 20))
		l, err := renewGiven(actx, client, tickets, o)
		cancel()
		switch {
		case err == nil && o.fits(l.Span()) != nil:
			return nil, o.fits(l.Span())
		case err == nil && l.Alive():
			return l, nil
		case err == nil:
			err = rpc.ErrUnanswered // too late
		case ctx.Err() != nil:
			return nil, client.Over(ctx, last)
		case client.Closed():
			return nil, ErrClientClosed
		case errors.Is(err, errNotInTime):
			rpc.Sleep(ctx, settles)
		case !rpc.Transient(err):
			return nil, err
		}
		last = rpc.Unanswered(err)
		if !pace.Wait(ctx) {
			return nil, client.Over(ctx, last)
		}
	}
}

// settles is how long a revocation that etcd may have decided on is given to take effect: many times what it takes.
const settles = time.Second

var errNotInTime = errors.New("the lease was about to end when it was renewed")

func renewGiven(ctx context.Context, client *rpc.Client, tickets *queue.Tickets, o options) (*lease.Lease, error) {
	asked := lease.Now()
	left, err := client.TimeToLive(ctx, o.lease)
	if err != nil {
		return nil, err
	}
	known := lease.Seconds(max(left.TTL, 0)) // whole seconds, so never too much
	sent, began := lease.Now(), time.Now()
	read, err := tickets.Read(ctx)
	if err != nil {
		return nil, err
	}
	ack, err := client.KeepAliveOnce(clientv3.WithRequireLeader(ctx), o.lease)
	gone := errors.Is(err, rpctypes.ErrLeaseNotFound)
	switch {
	case err != nil && (!gone || ack == nil):
		return nil, err
	case ack.GetRaftTerm() < read.GetRaftTerm(): // of a member that does not know who leads: neither yes nor no counts
		return nil, rpc.ErrUnanswered
	case gone || ack.TTL <= 0:
		return nil, fmt.Errorf("%w: %w", ErrLeaseLost, rpctypes.ErrLeaseNotFound)
	case lease.Now().Sub(asked) >= lease.Trusted(known):
		return nil, errNotInTime
	}
	client.Answered(time.Since(began) / 2)
	ttl := o.ttl
	if ttl == 0 {
		ttl = lease.Seconds(ack.TTL)
	}
	return lease.New(o.lease, ttl, o.margin, ack.TTL, sent), nil
}

// endLost ends the Session with the lease that it was given. What its tickets may have left in etcd it deletes, once its
// holders have had the time to stop, and for as long as it takes: others may renew the lease for ever. Close frees at once
// what no function runs under, as ever, and is done in closeLimit.
func (s *Session) endLost(l *queue.Lease, working <-chan struct{}) {
	s.leases.log.Warn("etcdlock: given lease lost, with every hold under it; the Session is over", queue.Attr(l.Lease),
		"cause", context.Cause(l.Context()), "last renewed", l.Age(), "last error", s.client.Why(s.leases.LastErr()))
	began := lease.Now()
	if !rpc.Sleep(s.hurry, l.Margin()) {
		awaitWork(working, l.Margin()-lease.Now().Sub(began))
	}
	ctx, cancel := context.WithCancel(s.tasks.Back())
	defer cancel()
	defer context.AfterFunc(s.hurry, func() {
		rpc.Sleep(ctx, closeLimit)
		cancel()
	})()
	if err := s.tickets.Clear(ctx, l, false); err != nil {
		s.leases.log.Debug("etcdlock: deleting the tickets of a lost lease", queue.Attr(l.Lease), "error", err)
	}
}
