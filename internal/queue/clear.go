package queue

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file removes what a Session leaves behind on a lease that it does not revoke: one that it orphans, because the holds
// stay, or one that it shares with others and has lost.

// remains is what may be in etcd of a ticket when its lease is over for this Session.
type remains struct {
	generation
	mod   int64         // as of which it was this Session's; 0 where that is not known
	put   bool          // by this Session, and not written since: who takes it up writes it
	after int64         // it was created after this revision
	slots []clientv3.Op // that delete its number, if it may have one
}

func (t *Ticket) remainsLocked() remains {
	r := remains{generation: generation{t.key, t.rev}, mod: t.mod, put: t.rev == 0 && !t.claimed, slots: t.slotDeletions()}
	if len(t.pending) > 0 {
		r.mod = 0
	}
	return r
}

// deletion removes the ticket unless somebody has taken it up since. A ticket whose put was not answered has a name that
// nobody else uses (names.go); of one whose value may have been replaced, the lease tells.
func (r remains) deletion(id clientv3.LeaseID) clientv3.Op {
	var when []clientv3.Cmp
	switch {
	case r.mod > 0:
		when = append(when, clientv3.Compare(clientv3.ModRevision(r.key), "=", r.mod))
	case r.rev > 0:
		when = append(when, clientv3.Compare(clientv3.CreateRevision(r.key), "=", r.rev))
		fallthrough
	default:
		when = append(when, clientv3.Compare(clientv3.LeaseValue(r.key), "=", id))
	}
	if r.put {
		when = append(when, clientv3.Compare(clientv3.Version(r.key), "=", 1))
	}
	if r.after > 0 {
		when = append(when, clientv3.Compare(clientv3.CreateRevision(r.key), ">", r.after))
	}
	return clientv3.OpTxn(when, []clientv3.Op{clientv3.OpDelete(r.key)}, nil)
}

// Clear deletes the tickets under l, which is over, or with keepHolds, those but not the ones that held to the end. (What a
// function of Do or Run ran under is deleted, too: its release may not have begun.) Puts that are still under way are not stopped
// by it: what arrives later stays until the lease ends in etcd, and the error says that it may; a put that was not answered for a
// TTL is not counted on any more. A ticket that is gone for us, since its deletion was confirmed before its put arrived, may have
// come back: so if there is one whose put was not answered, what the lease has under names of ours is looked for, as in a sweep.
func (q *Tickets) Clear(ctx context.Context, l *Lease, keepHolds bool) error {
	l.unhook()
	q.mu.Lock()
	all := l.left
	l.left = nil
	kept := map[string]bool{}
	for key, t := range l.tickets {
		if t.state == held && keepHolds && !t.set().worked() {
			kept[key] = true
		} else if t.state != gone && t.mayBeOursLocked() {
			all = append(all, t.remainsLocked())
		}
		t.goneLocked(0)
	}
	late, until := l.names.late, l.names.unanswered
	q.mu.Unlock()
	var ops []clientv3.Op
	unanswered := until != 0 && lease.Now() < until
	for _, r := range all {
		ops = append(append(ops, r.deletion(l.ID)), r.slots...)
		unanswered = unanswered || r.rev == 0
	}
	err := q.commit(ctx, ops)
	if err == nil && late {
		err = q.deleteStrays(ctx, l, kept)
	}
	if err == nil && unanswered {
		err = errLatePut
	}
	return err
}

// errLatePut says that a put was not answered.
var errLatePut = errors.New("a ticket that waited may still arrive, since the request to put it was not answered")

// mayBeOursLocked reports whether the ticket may be this Session's in etcd. One that was to be taken up on a lease which
// others share, and of which that is not known, stays where it is: it may be theirs.
func (t *Ticket) mayBeOursLocked() bool { return !t.claimed || t.rev > 0 || !t.lease.shared }
