package queue

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes tickets of several names together, all or none.
//
// One Txn puts them all, so they have one create revision. That is what makes it free of deadlock: every wait goes from a
// ticket to one of a lower revision, also where the two belong to different sets, so there is no cycle, in whatever order
// callers name their locks. Two Txns could each be ahead of the other in one queue.
//
// Their hold is one: it begins when the last of them is first in its queue, ends when one of them is lost, and its release
// is one Txn again. None of them is handed over in memory: it would hold, and the others not.

// All is a set of tickets of different names that were put together. Each of them stands for the whole: what its holder
// can do with one (release.go) is done with all.
type All struct {
	tickets []*Ticket // in the order of the names

	// Of the goroutine that acquires them.
	at      int64   // the latest revision as of which one of them was seen to be first
	waiting *Ticket // the one that is waited for
}

// set is the tickets that were put together with this one, and itself.
func (t *Ticket) set() []*Ticket {
	if t.all == nil {
		return []*Ticket{t}
	}
	return t.all.tickets
}

// of is the queue's own part.
func (s *All) of() *Tickets { return s.tickets[0].group.q }

// AcquireAll queues for all names at once and waits until all tickets are first, as long as ctx allows. It returns the
// first of them. Where one goes, all leave and queue again. With an error, by and in tell who held which name as for
// Acquire. all stands for the names where the wait is told.
func (q *Tickets) AcquireAll(
	ctx context.Context, k *Kind, all string, names []string, value string,
) (t *Ticket, by *Contender, in string, err error) {
	w := q.waitBegun(ctx, k, all, false)
	t, by, in, err = q.acquireAll(ctx, k, names, value)
	q.waitEnded(ctx, w, t, by, err)
	return t, by, in, err
}

func (q *Tickets) acquireAll(
	ctx context.Context, k *Kind, names []string, value string,
) (t *Ticket, by *Contender, in string, err error) {
	for n := 0; ; n++ {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, "", err
		}
		s := q.newAll(l, k, names, value)
		if err := q.over(); err != nil { // as in acquire
			s.forget()
			return nil, nil, "", err
		}
		behind, err := s.enqueue(ctx)
		if err == nil {
			err = s.wait(ctx, behind)
		}
		if err == nil {
			return s.tickets[0], nil, "", nil
		}
		s.giveUp(err)
		if ctx.Err() == nil && l.open.Err() == nil && !errors.Is(err, errRequeue) {
			return nil, nil, "", q.why(ctx, err)
		}
		if pause(ctx, l, n); ctx.Err() != nil {
			if s.waiting != nil {
				by, in = s.waiting.blocker(), s.waiting.group.Name
			}
			return nil, by, in, q.why(ctx, err)
		}
	}
}

// newAll registers a ticket of each name. None takes up a ticket that idles: that one leaves, and is waited for.
func (q *Tickets) newAll(l *Lease, k *Kind, names []string, value string) *All {
	s := &All{tickets: make([]*Ticket, len(names))}
	recheck := make(chan struct{}, 1) // one for all: whichever is removed, the waiting caller hears of it
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, name := range names {
		q.groups[name].takeUpLocked(k) // what idles only leaves, since k is not handed over in memory
		t := q.newTicketLocked(l, k, name, value)
		t.all, t.recheck = s, recheck
		s.tickets[i] = t
	}
	return s
}

// enqueue puts all tickets at the ends of their queues, in one request. The ranges come before all puts: names nest, and a
// later one would see what an earlier put of this Txn has put.
func (s *All) enqueue(ctx context.Context) ([]ahead, error) {
	first, c := s.tickets[0], s.of().c
	ctx, release := first.lease.bound(ctx)
	defer release()
	var absent []clientv3.Cmp
	var looks, puts, finds []clientv3.Op
	for _, t := range s.tickets {
		absent = append(absent, clientv3.Compare(clientv3.CreateRevision(t.key), "=", 0))
		looks = append(looks, t.asking(2, 0, 0)...)
		puts = append(puts, clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.ID)))
		finds = append(finds, clientv3.OpGet(t.key))
	}
	resp, err := rpc.Retry(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		start := lease.Now()
		resp, err := c.Txn(ctx).If(absent...).Then(append(looks, puts...)...).Else(finds...).Commit()
		first.putAnswered(start, err)
		return resp, err
	})
	if err != nil {
		return nil, s.refused(err, len(looks)+len(puts))
	}
	if !resp.Succeeded {
		if !s.found(resp.Responses) {
			return nil, errRequeue
		}
		return s.look(ctx, 0, nil)
	}
	return s.placed(ctx, resp)
}

// placed takes the tickets for put at the revision of the answer, and reads who is ahead of them.
func (s *All) placed(ctx context.Context, resp *clientv3.TxnResponse) ([]ahead, error) {
	rev := resp.Header.Revision
	behind := make([]ahead, len(s.tickets))
	for i, t := range s.tickets {
		t.placed(rev)
		a, ok := t.ahead([]*pb.RangeResponse{resp.Responses[i].GetResponseRange()}, rev)
		if !ok { // names nest here
			var err error
			if a, err = t.look(ctx, rev); err != nil {
				return nil, err
			}
		}
		behind[i] = a
	}
	return behind, nil
}

// refused words what etcd says to so many operations in one Txn.
func (s *All) refused(err error, ops int) error {
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("%d names take %d operations in one Txn, and this etcd takes fewer (--max-txn-ops): %w",
			len(s.tickets), ops, err)
	}
	return s.tickets[0].leaseGone(err)
}

// found takes the keys that are there already for these tickets. They are what an earlier copy of the same Txn has put
// only if all are there, with one create revision and our values. Else they have to go, and nothing of their names is used
// again.
func (s *All) found(answers []*pb.ResponseOp) bool {
	same := true
	var rev int64
	for i, t := range s.tickets {
		kv := generationAny(answers[i].GetResponseRange().Kvs, t.key)
		if kv == nil {
			same = false
			continue
		}
		if t.foundTaken(kv) {
			same = false
			continue
		}
		t.placed(kv.CreateRevision)
		if rev == 0 {
			rev = kv.CreateRevision
		}
		same = same && kv.CreateRevision == rev && string(kv.Value) == t.value
	}
	if !same {
		s.tickets[0].late()
	}
	return same
}

// generationAny returns key, nil if it is not among kvs.
func generationAny(kvs []*mvccpb.KeyValue, key string) *mvccpb.KeyValue {
	for _, kv := range kvs {
		if string(kv.Key) == key {
			return kv
		}
	}
	return nil
}
