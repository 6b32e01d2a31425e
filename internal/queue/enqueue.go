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

// This file puts tickets at the ends of their queues, and reads what is there already.

// put is how a ticket comes to be in etcd.
func (t *Ticket) put() clientv3.Op {
	return clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.ID))
}

// absent is true while it is not there.
func (t *Ticket) absent() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(t.key), "=", 0)
}

// enqueue puts the tickets at the ends of their queues: one request, which can be repeated until it is answered. The
// operations of a Txn run in order, so the ranges see the queues just before the puts; all ranges come before all puts, as
// names nest.
//
// A second arrival, sent by us or by the etcd client on its own, finds the tickets and changes nothing. So does one that
// finds there what was put for earlier tickets of these names: see found.
func (s set) enqueue(ctx context.Context) ([]ahead, error) {
	c, k := s.of().c, s[0].kind
	ctx, release := s[0].lease.bound(ctx)
	defer release()
	var absent []clientv3.Cmp
	var looks, puts, finds []clientv3.Op
	for _, t := range s {
		counting := t.group.counting(k.Class)
		absent = append(absent, t.absent())
		looks = append(append(looks, t.asking(2, 0, 0)...), counting...)
		puts = append(puts, t.put())
		finds = append(append(finds, clientv3.OpGet(t.key)), counting...)
	}
	each := len(looks) / len(s) // of the answers belong to one ticket
	then := append(looks, puts...)
	resp, err := rpc.Retry(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		start := lease.Now()
		resp, err := c.Txn(ctx).If(absent...).Then(then...).Else(finds...).Commit()
		s[0].putAnswered(start, err)
		return resp, err
	})
	if err != nil {
		return nil, s.refused(err, len(then))
	}
	if !resp.Succeeded {
		if !s.found(resp.Responses, resp.Header.Revision) {
			return nil, errRequeue
		}
		return s.unseen(), nil
	}
	behind := make([]ahead, len(s))
	rev, gates := resp.Header.Revision, len(k.Class.gates(s[0].group.prefix))
	for i, t := range s {
		own := resp.Responses[i*each:][:each]
		t.count(own[gates:], rev, generation{t.key, rev})
		t.placed(rev)
		var ok bool
		if behind[i], ok = t.ahead(ranges(own[:gates]), rev); !ok { // names nest here
			behind[i] = t.unseen()
		}
	}
	return behind, nil
}

func ranges(answers []*pb.ResponseOp) (rs []*pb.RangeResponse) {
	for _, r := range answers {
		rs = append(rs, r.GetResponseRange())
	}
	return rs
}

// refused words what etcd says to so many operations in one Txn, and to a dead lease.
func (s set) refused(err error, ops int) error {
	if errors.Is(err, rpctypes.ErrTooManyOps) {
		return fmt.Errorf("%d names take %d operations in one Txn, and this etcd takes fewer (--max-txn-ops): %w",
			len(s), ops, err)
	}
	return s[0].leaseGone(err)
}

// found takes the keys that are there already for these tickets, as of revision rev. They are what an earlier copy of the
// same Txn has put only if all are there, with one create revision and our values; one that was put for an earlier ticket of
// its name is as good. Else they have to go, and nothing of their names is used again. One that another Session has taken up
// before we knew that it was there is that Session's.
func (s set) found(answers []*pb.ResponseOp, rev int64) bool {
	same, each := true, len(answers)/len(s)
	for i, t := range s {
		own := answers[i*each:][:each]
		t.count(own[1:], rev, generation{})
		kvs := own[0].GetResponseRange().Kvs
		if len(kvs) == 0 || t.foundTaken(kvs[0]) {
			same = false
			continue
		}
		t.placed(kvs[0].CreateRevision)
		same = same && t.rev == s[0].rev && string(kvs[0].Value) == t.value
	}
	if !same {
		s[0].late()
	}
	return same
}

func (t *Ticket) foundTaken(kv *mvccpb.KeyValue) bool {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.mod = kv.CreateRevision // as we have written it
	if !t.takenLocked(kv) {
		return false
	}
	t.passedOnLocked(kv.CreateRevision)
	return true
}

// leaseGone turns etcd's refusal of a dead lease into the loss that it is.
func (t *Ticket) leaseGone(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.lease.NotFound()
		return errRequeue
	}
	return err
}
