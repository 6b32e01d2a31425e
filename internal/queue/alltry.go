package queue

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file takes several names only if all of them are free.

// TryAll takes all names if nobody is in the way in any of them, and else tells who is, and in which.
func (q *Tickets) TryAll(
	ctx context.Context, k *Kind, all string, names []string, value string,
) (t *Ticket, by *Contender, in string, err error) {
	w := q.waitBegun(ctx, k, all, true)
	t, by, in, err = q.acquireAllIfFree(ctx, k, names, value)
	q.waitEnded(ctx, w, t, by, err)
	return t, by, in, err
}

func (q *Tickets) acquireAllIfFree(
	ctx context.Context, k *Kind, names []string, value string,
) (t *Ticket, by *Contender, in string, err error) {
	for {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, "", err
		}
		s := q.newAll(l, k, names, value)
		if err := q.over(); err != nil { // as in acquire
			s.forget()
			return nil, nil, "", err
		}
		by, in, err := s.try(ctx)
		switch {
		case err == nil && by != nil:
			if s.tickets[0].rev == 0 {
				s.forget() // they were never put
			} else {
				s.leave(ctx, true)
			}
			return nil, by, in, nil
		case err == nil:
			err = s.grant()
		}
		if err == nil {
			return s.tickets[0], nil, "", nil
		}
		s.giveUp(err)
		if !errors.Is(err, errRequeue) && l.open.Err() == nil || ctx.Err() != nil {
			return nil, nil, "", q.why(ctx, err)
		}
	}
}

// try puts the tickets if nobody is in the way, and else returns who is.
func (s *All) try(ctx context.Context) (by *Contender, in string, err error) {
	ctx, release := s.tickets[0].lease.bound(ctx)
	defer release()
	for _, t := range s.tickets {
		if by := t.ownHolder(); by != nil {
			return by, t.group.Name, nil
		}
	}
	for _, t := range s.tickets {
		if err := t.group.settle(ctx, t.kind.Class); err != nil {
			return nil, "", err
		}
	}
	return s.enqueueIfFree(ctx)
}

// ownHolder tells that a ticket of this Session holds.
func (t *Ticket) ownHolder() *Contender {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.group.ownHolderLocked(t.kind.Class)
}

// enqueueIfFree puts the tickets only if all queues are empty: one request, which writes no key if one is not. Where a key of
// a name that nests hides who is there, the tickets queue for a moment to see.
func (s *All) enqueueIfFree(ctx context.Context) (by *Contender, in string, err error) {
	var free []clientv3.Cmp
	var puts, finds, firsts []clientv3.Op
	for _, t := range s.tickets {
		for _, gate := range t.kind.Class.gates(t.group.prefix) {
			free = append(free, clientv3.Compare(clientv3.CreateRevision(gate.from).WithRange(gate.to), "<", 1))
			firsts = append(firsts, clientv3.OpGet(gate.from, clientv3.WithRange(gate.to), clientv3.WithLimit(1),
				clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
		}
		puts = append(puts, clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.ID)))
		finds = append(finds, clientv3.OpGet(t.key))
	}
	start := lease.Now()
	var resp *clientv3.TxnResponse
	err = s.of().c.Once(ctx, func(ctx context.Context) (err error) {
		resp, err = s.of().c.Txn(ctx).If(free...).Then(puts...).Else(append(finds, firsts...)...).Commit()
		return err
	})
	if err != nil {
		return nil, "", s.refused(err, len(finds)+len(firsts))
	}
	s.tickets[0].putAnswered(start, nil)
	if resp.Succeeded {
		for _, t := range s.tickets {
			t.placed(resp.Header.Revision)
		}
		return nil, "", nil
	}
	own, first := resp.Responses[:len(s.tickets)], resp.Responses[len(s.tickets):]
	if slices.ContainsFunc(own, func(r *pb.ResponseOp) bool { return len(r.GetResponseRange().Kvs) > 0 }) {
		if !s.found(own) {
			return nil, "", errRequeue
		}
		behind, err := s.look(ctx, 0, nil) // it was sent twice
		return s.inTheWay(ctx, behind, err)
	}
	for i, t := range s.tickets {
		if by, sure := t.inTheWay(first[i : i+1]); by != nil && sure {
			return by, t.group.Name, nil
		}
	}
	behind, err := s.enqueue(ctx)
	return s.inTheWay(ctx, behind, err)
}

// inTheWay returns who is ahead of the tickets, which are in their queues.
func (s *All) inTheWay(ctx context.Context, behind []ahead, err error) (*Contender, string, error) {
	for {
		if err != nil {
			return nil, "", err
		}
		i := slices.IndexFunc(behind, func(a ahead) bool { return !a.none() })
		if i < 0 {
			return nil, "", nil
		}
		t := s.tickets[i]
		var by *Contender
		by, _, err = t.firstInTheWay(ctx)
		switch {
		case err != nil:
			return nil, "", err
		case by == nil: // somebody removed the ticket
			return nil, "", errRequeue
		case by.Key != t.key:
			return by, t.group.Name, nil
		}
		behind, err = s.look(ctx, 0, nil) // whoever that was is gone
	}
}
