package queue

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes a set of tickets out of the queue, and has what its holder can do with it. All that were put in one Txn
// are deleted in one. Where that is not answered, or too much, each name's own flush goes on with it.
//
// Nothing older can stand in these queues: a ticket that holds is first, and no hold was handed over to it in memory. So
// this Txn carries no other deletions, as those of one name must (see flushDueLocked).

// giveUp leaves after a failure, as for one ticket.
func (s *All) giveUp(err error) {
	q := s.of()
	q.mu.Lock()
	for _, t := range s.tickets {
		t.refusedLocked(err)
	}
	q.mu.Unlock()
	s.leave(q.tasks.Back(), true)
}

// forget drops tickets that were never put.
func (s *All) forget() {
	for _, t := range s.tickets {
		t.forget()
	}
}

// leave takes all tickets out of their queues, with the first attempt to delete them in the caller's goroutine or aside.
func (s *All) leave(ctx context.Context, aside bool) {
	l, q := s.tickets[0].lease, s.of()
	l.Alive() // ends it if it is over
	var due []*group
	q.mu.Lock()
	for _, t := range s.tickets {
		if (t.state == sending || t.state == waiting || t.state == held) && t.startLeavingLocked() {
			due = append(due, t.group)
		}
	}
	q.mu.Unlock()
	if len(due) == 0 {
		return
	}
	limit := min(q.c.AttemptTimeout(0), l.Left()) // with the lease's end the tickets go by themselves
	if !aside {
		s.attempt(ctx, limit, due)
	} else if !q.tasks.Go(func() { s.attempt(q.tasks.Back(), limit, due) }) {
		q.mu.Lock() // the Session is closed: the revoked lease takes the tickets
		defer q.mu.Unlock()
		for _, g := range due {
			g.flushes--
		}
	}
}

// attempt deletes those that have left in one Txn. due are the groups whose flush this is: it ends, or goes on with what
// is left of its name.
func (s *All) attempt(ctx context.Context, limit time.Duration, due []*group) {
	q := s.of()
	var batch []*Ticket
	q.mu.Lock()
	for _, t := range s.tickets {
		if t.state == left {
			batch = append(batch, t)
		}
	}
	ops := deletionsLocked(batch)
	q.mu.Unlock()
	var done deleted
	if len(ops) > 0 {
		done = q.deleteNow(ctx, limit, ops)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deletedLocked(batch, done)
	for _, g := range due {
		if g.dropDeletedLocked(); len(g.toDelete) == 0 {
			g.flushes--
		} else {
			g.flushLocked()
		}
	}
}

// release is Ticket.Release for all.
func (s *All) release(ctx context.Context, again bool) error {
	first := s.tickets[0]
	enough := time.NewTimer(first.lease.Left())
	defer enough.Stop()
	if !again {
		lost := first.hold.Release()
		s.leave(ctx, ctx.Err() != nil)
		if lost != nil {
			return lost
		}
	}
	var lost error
	for _, t := range s.tickets {
		err := t.awaitGone(ctx, enough.C)
		switch {
		case errors.Is(err, lease.ErrLost):
			lost = err
		case err != nil:
			return err
		}
	}
	return lost
}

// guards is Ticket.Guard for all, nil if they do not hold.
func (s *All) guards() (all []clientv3.Cmp) {
	for _, t := range s.tickets {
		cmp, ok := t.Guard()
		if !ok {
			return nil
		}
		all = append(all, cmp)
	}
	return all
}

// ask is Ticket.ask for all, in one request.
func (s *All) ask(ctx context.Context) error {
	c := s.of().c
	ops := make([]clientv3.Op, len(s.tickets))
	for i, t := range s.tickets {
		ops[i] = clientv3.OpGet(t.key) // with its lease, as in Ticket.ask
	}
	resp, err := rpc.Retry(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return c.Txn(ctx).Then(ops...).Commit()
	})
	if err != nil {
		return err
	}
	for i, t := range s.tickets {
		t.shown(resp.Responses[i].GetResponseRange().Kvs, resp.Header.Revision)
	}
	return nil
}
