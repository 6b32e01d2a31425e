package queue

import (
	"context"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file has a set of tickets wait, and makes it one hold.

// wait waits for one ticket after the other. That takes as long as the longest wait, since all of them stand in their
// queues meanwhile; and it takes two watches, for any number of names.
func (s *All) wait(ctx context.Context, behind []ahead) (err error) {
	for {
		i := slices.IndexFunc(behind, func(a ahead) bool { return !a.none() })
		if i < 0 {
			return s.grant()
		}
		t := s.tickets[i]
		s.at, s.waiting = behind[i].rev, t
		if err := t.wait(ctx, behind[i]); err != nil {
			return err
		}
		t.waitsFor(generation{})
		behind[i] = ahead{rev: s.at}
		if behind, err = s.look(ctx, s.at, behind); err != nil {
			return err
		}
	}
}

// isFirst says that one ticket of the set is first, as of revision at.
func (s *All) isFirst(at int64) {
	if s != nil {
		s.at = max(s.at, at)
	}
}

// look asks, as of revision at, or as of now if that is 0, whether all tickets are there, and who is ahead of those that
// were not first before. It is made before the hold begins, also when the last has just become first: one that became so
// long ago has no watch since, and somebody may have removed it.
func (s *All) look(ctx context.Context, at int64, before []ahead) ([]ahead, error) {
	ctx, release := s.tickets[0].lease.bound(ctx)
	defer release()
	wasFirst := func(i int) bool { return before != nil && before[i].none() }
	answers, rev, err := s.of().c.ReadAt(ctx, at, func(at int64) clientv3.Op {
		var own, looks []clientv3.Op
		for i, t := range s.tickets {
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
	own, looks := answers[:len(s.tickets)], answers[len(s.tickets):]
	gone := false
	for i, t := range s.tickets {
		if generationOf(own[i].Kvs, t.key, t.rev) == nil {
			t.Removed(rev)
			gone = true
		}
	}
	if gone {
		return nil, errRequeue
	}
	behind := make([]ahead, len(s.tickets))
	for i, t := range s.tickets {
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
func (s *All) grant() error {
	l, q := s.tickets[0].lease, s.of()
	if !l.Alive() {
		return errRequeue
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if slices.ContainsFunc(s.tickets, func(t *Ticket) bool { return t.state != waiting }) {
		return errRequeue
	}
	hold := lease.NewHold(l.Lease, s.tickets[0].kind.Released)
	for _, t := range s.tickets {
		t.hold = hold
		if err := t.grantLocked(); err != nil {
			return err
		}
	}
	return nil
}
