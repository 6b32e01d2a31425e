package queue

import (
	"context"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file has what tickets of several names have in common that are taken together, all or none. A ticket by itself is a set
// of one.
//
// One Txn puts them all, so they have one create revision. That is what makes it free of deadlock: every wait goes from a
// ticket to one of a lower revision, also where the two belong to different sets, so there is no cycle, in whatever order
// callers name their locks. Two Txns could each be ahead of the other in one queue.
//
// Their hold is one: it begins when the last of them is first in its queue, ends when one of them is lost, and its release
// is one Txn again. None of them is handed over in memory: it would hold, and the others not.

// set is tickets of different names that are put together, in the order of the names. Each stands for the whole: what its
// holder can do with one (release.go) is done with all.
type set []*Ticket

// together is what the tickets of a set of several share. It is of the goroutine that acquires them.
type together struct {
	set
	at      int64   // the latest revision as of which one of them was seen to be first
	waiting *Ticket // the one that is waited for
}

// set is the ticket and those that were put with it.
func (t *Ticket) set() set {
	if t.all == nil {
		return set{t}
	}
	return t.all.set
}

// of is the queue's own part.
func (s set) of() *Tickets { return s[0].group.q }

// newSet registers a ticket of each name before its put is sent, so that clean-up can tell it from a stray at any time.
// Where the Session keeps the lock idle, that is taken up instead, and held. The two are one step: a ticket that idles never
// has one of its own Session behind it. Several tickets take up none: what idles leaves, and is waited for.
func (q *Tickets) newSet(l *Lease, k *Kind, names []string, value string) (s set, takenUp *Ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range names {
		if t := q.groups[name].takeUpLocked(k); t != nil {
			return nil, t
		}
		s = append(s, q.newTicketLocked(l, k, name, value))
	}
	if len(s) > 1 {
		all, recheck := &together{set: s}, make(chan struct{}, 1) // whichever is removed, the waiting caller hears of it
		for _, t := range s {
			t.all, t.recheck = all, recheck
		}
	}
	return s, nil
}

// queue is for whoever waits.
func (s set) queue(ctx context.Context) (*Contender, error) {
	behind, err := s.enqueue(ctx)
	if err == nil {
		err = s.wait(ctx, behind)
	}
	return nil, err
}

// wait waits for one ticket after the other. That takes as long as the longest wait, since all of them stand in their
// queues meanwhile; and it takes two watches, for any number of names.
func (s set) wait(ctx context.Context, behind []ahead) (err error) {
	if len(s) == 1 {
		return s[0].turn(ctx, behind[0])
	}
	all := s[0].all
	for {
		i := slices.IndexFunc(behind, func(a ahead) bool { return !a.none() })
		if i < 0 {
			return s.grant()
		}
		t := s[i]
		all.at, all.waiting = behind[i].rev, t
		if err := t.turn(ctx, behind[i]); err != nil {
			return err
		}
		t.waitsFor(generation{})
		behind[i] = ahead{rev: all.at}
		if behind, err = s.look(ctx, all.at, behind); err != nil {
			return err
		}
	}
}

// turn waits for the turn of one ticket.
func (t *Ticket) turn(ctx context.Context, a ahead) error {
	t.warnOf(a.near.key)
	if t.kind.Elects && (t.group.class(a.near.key) != Exclusive || t.group.class(a.far.key) != Exclusive) {
		return ErrShared
	}
	return t.wait(ctx, a)
}

// isFirst says that one ticket of the set is first, as of revision at.
func (s *together) isFirst(at int64) {
	if s != nil {
		s.at = max(s.at, at)
	}
}

// look asks, as of revision at, or as of now if that is 0, whether all tickets are there, and who is ahead of those that
// were not first before. It is made before the hold begins, also when the last has just become first: one that became so
// long ago has no watch since, and somebody may have removed it.
func (s set) look(ctx context.Context, at int64, before []ahead) ([]ahead, error) {
	ctx, release := s[0].lease.bound(ctx)
	defer release()
	wasFirst := func(i int) bool { return before != nil && before[i].none() }
	answers, rev, err := s.of().c.ReadAt(ctx, at, func(at int64) clientv3.Op {
		var own, looks []clientv3.Op
		for i, t := range s {
			own = append(own, clientv3.OpGet(t.key, append(rpc.AsOf(at), clientv3.WithKeysOnly())...))
			if !wasFirst(i) {
				looks = append(looks, t.asking(3, t.rev, at)...) // itself, and two
			}
		}
		return clientv3.OpTxn(nil, append(own, looks...), nil)
	})
	if err != nil {
		return nil, err
	}
	own, looks := answers[:len(s)], answers[len(s):]
	gone := false
	for i, t := range s {
		if generationOf(own[i].Kvs, t.key, t.rev) == nil {
			t.Removed(rev)
			gone = true
		}
	}
	if gone {
		return nil, errRequeue
	}
	behind := make([]ahead, len(s))
	for i, t := range s {
		behind[i] = ahead{rev: rev}
		if wasFirst(i) {
			continue
		}
		a, ok := t.ahead(looks[:1], rev)
		looks = looks[1:]
		if !ok { // names nest here
			if a, err = t.look(ctx, rev); err != nil {
				return nil, err
			}
		}
		behind[i] = a
	}
	return behind, nil
}

// grant makes all tickets one hold.
func (s set) grant() error {
	l, q := s[0].lease, s.of()
	if !l.Alive() {
		return errRequeue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(s, func(t *Ticket) bool { return t.state != waiting }) {
		return errRequeue
	}
	hold := lease.NewHold(l.Lease, s[0].kind.Released)
	for _, t := range s {
		t.hold = hold
		if err := t.grantLocked(); err != nil {
			return err
		}
	}
	return nil
}

// blocker is who holds, for the error of a caller that gives up, and in which queue.
func (s set) blocker() (*Contender, string) {
	t := s[0]
	if t.all != nil {
		if t = t.all.waiting; t == nil {
			return nil, ""
		}
	}
	return t.blocker(), t.group.Name
}
