package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file releases a hold, guards it and asks etcd for it. What else a holder can do with its ticket is in stay.go,
// proclaim.go, slot.go and wanted.go.

// Release ends the hold and waits for the confirmed deletion; again only waits. The hold is over for its holder before
// the ticket is touched.
//
// nil says that the ticket is gone, or that it lingers. lease.ErrLost, ErrClosed and rpc.ErrClientClosed say why the hold
// had ended before; everything else matches ErrUnconfirmed.
func (t *Ticket) Release(ctx context.Context, again bool) error {
	if again && t.stay != nil {
		return t.awaitStay(ctx, time.After(t.lease.Left()))
	}
	var lost error
	if !again {
		if lost = t.hold.Release(); lost == nil && t.lingers() {
			return nil // before there is a timer: this is all that a lingering release costs
		}
	}
	enough := time.NewTimer(t.lease.Left()) // as of the call: renewals may go on while writes do not
	defer enough.Stop()
	if !again {
		if t.set().leave(ctx, ctx.Err() == nil); lost != nil {
			return lost
		}
	}
	for _, t := range t.set() {
		if err := t.awaitGone(ctx, enough.C); errors.Is(err, lease.ErrLost) {
			lost = err
		} else if err != nil {
			return err
		}
	}
	return lost
}

// awaitGone waits until the ticket's deletion is confirmed. It ends early when ctx does, when enough comes, when the lease
// is over (then etcd removes the ticket by itself), or when etcd refuses for good; the clean-up goes on in any case.
//
// lease.ErrLost says that etcd answered every deletion sent, and none of them found the ticket: somebody else had removed
// it. One that was not answered, or so late that the etcd client may have sent it twice, may have been the one that did.
func (t *Ticket) awaitGone(ctx context.Context, enough <-chan time.Time) error {
	q := t.group.q
	for {
		q.mu.Lock()
		d, last := t.deletions, t.group.lastErr
		over, confirmed := t.state == gone, t.state == gone && t.goneAt > 0
		changed := t.changedLocked()
		q.mu.Unlock()
		switch {
		case confirmed && (d.found || d.unknown):
			return nil
		case confirmed && d.out == 0:
			if err := t.lease.sessionOver(); err != nil {
				return err // it was the end of the Session that removed it, for all that is known
			}
			return lease.ErrLost
		case !confirmed && (over || t.lease.Context().Err() != nil):
			if err := t.lease.sessionOver(); err != nil {
				return err
			}
			return unconfirmed(errors.New("the lease ended first"), q.c.Why(last))
		case d.refused != nil:
			return unconfirmed(d.refused, nil)
		}
		leaseOver := t.lease.Context().Done()
		if confirmed { // one more answer is to come, which does not hang on the lease
			leaseOver = nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unconfirmed(ctx.Err(), q.c.Why(last))
		case <-enough:
			return unconfirmed(errors.New("the hold would have ended by now"), q.c.Why(last))
		case <-leaseOver:
		}
	}
}

// unconfirmed is the error of a release that goes on in the background.
func unconfirmed(why, last error) error {
	if last == nil {
		return fmt.Errorf("%w: %w", ErrUnconfirmed, why)
	}
	return fmt.Errorf("%w: %w; last from etcd: %w", ErrUnconfirmed, why, last)
}

// Guard returns a comparison that is true while the ticket exists, and is not kept for a while after its release (stay.go);
// ok is false if it does not hold. Giving it out rules out a handoff in memory: the ticket's key outlives such a release for a
// moment.
func (t *Ticket) Guard() (cmp clientv3.Cmp, ok bool) {
	if t.hold.Err() != nil {
		return clientv3.Cmp{}, false
	}
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.state != held {
		return clientv3.Cmp{}, false
	}
	t.guarded = true
	if t.kind.Elects { // whose value changes
		return clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev), true
	}
	return clientv3.Compare(clientv3.ModRevision(t.key), "=", t.mod), true // which is later than rev if it was taken up
}

// Guards are the comparisons that are true while all that it holds exists, nil if it does not hold.
func (t *Ticket) Guards() (all []clientv3.Cmp) {
	for _, t := range t.set() {
		cmp, ok := t.Guard()
		if !ok {
			return nil
		}
		all = append(all, cmp)
	}
	return all
}

// Verify asks etcd for the ticket. That it exists is enough: it held once, and nobody can come before it.
func (t *Ticket) Verify(ctx context.Context) error {
	return t.whileHeld(ctx, func(ctx context.Context) error {
		return t.ask(ctx, 0) // with the lease, which a read of keys alone has not
	})
}

// whileHeld asks etcd something with a context that ends with the hold, too: with etcd away, the hold's end is the answer.
func (t *Ticket) whileHeld(ctx context.Context, ask func(context.Context) error) error {
	if t.hold.Err() != nil {
		return context.Cause(t.hold)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)()
	err := ask(ctx)
	if t.hold.Err() != nil {
		return context.Cause(t.hold)
	}
	return err
}

// ask asks etcd for the ticket, and those of its set, as of revision at, or now if that is 0, and takes in what is gone.
func (t *Ticket) ask(ctx context.Context, at int64, opts ...clientv3.OpOption) error {
	s := t.set()
	answers, rev, err := s.of().c.ReadAt(ctx, at, func(at int64) clientv3.Op {
		ops := make([]clientv3.Op, len(s))
		for i, t := range s {
			ops[i] = clientv3.OpGet(t.key, append(rpc.AsOf(at), opts...)...)
		}
		if len(ops) == 1 {
			return ops[0]
		}
		return clientv3.OpTxn(nil, ops, nil)
	})
	if err != nil {
		return err
	}
	for i, t := range s {
		t.shown(answers[i].Kvs, rev, len(opts) == 0)
	}
	return nil
}

// shown takes in what a read of the key has shown as of rev: that the ticket is gone; and a whole one, with value and lease,
// whose it is now.
func (t *Ticket) shown(kvs []*mvccpb.KeyValue, rev int64, whole bool) {
	switch kv := generationOf(kvs, t.key, t.rev); {
	case kv == nil:
		t.Removed(rev)
	case whole && t.taken(kv):
		t.Removed(0)
	case whole:
		t.keepOurs(kv)
	}
}
