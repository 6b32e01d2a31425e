package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file has what is asked of etcd about a queue: to join it, and who is ahead.

// ahead is what excludes a ticket as of one revision: nobody (it holds), one ticket (which therefore holds), or the two
// nearest, of which near may not hold.
type ahead struct {
	rev       int64
	near, far generation // without a key: there is none
	whole     bool       // there is nobody beside these two
	gone      int64      // the newest deletion that was crossed off since, as of which the own ticket was not looked for
}

func (a ahead) none() bool { return a.near.key == "" }

// alone reports whether nobody is before near: when it goes, the ticket behind it holds.
func (a ahead) alone() bool { return a.far.key == "" }

// without is what is ahead once p, one of the two, has gone by revision at. Nobody comes before a ticket that exists, so whoever
// saw everybody needs no look. The news of two deletions may come in either order: the newest of them counts.
func (a ahead) without(p generation, at int64) ahead {
	if p == a.near {
		a.near = a.far
	}
	a.far = generation{}
	a.gone = max(a.gone, at)
	return a
}

// asking are the reads of the nearest limit contenders in each gate, created up to the revision upTo, 0 for no bound.
//
// The server scans the whole range for one; keys alone, it does so in its index.
func (t *Ticket) asking(limit, upTo, at int64) (ops []clientv3.Op) {
	class := t.kind.Class
	if t.drain != nil {
		class = Reader // which are counted
	}
	for _, gate := range class.gates(t.group.prefix) {
		opts := append(rpc.AsOf(at),
			clientv3.WithRange(gate.to), clientv3.WithKeysOnly(), clientv3.WithLimit(limit),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend))
		if upTo > 0 {
			opts = append(opts, clientv3.WithMaxCreateRev(upTo))
		}
		ops = append(ops, clientv3.OpGet(gate.from, opts...))
	}
	return ops
}

// ahead reads the answers; not ok if keys of nested names crowded out the contenders of a gate.
func (t *Ticket) ahead(answers []*pb.RangeResponse, rev int64) (a ahead, ok bool) {
	var nearest []generation
	ok, more := true, false
	for _, r := range answers {
		n := 0
		for _, kv := range r.Kvs {
			if t.group.direct(string(kv.Key)) && string(kv.Key) != t.key {
				nearest = append(nearest, generation{string(kv.Key), kv.CreateRevision})
				n++
			}
		}
		ok, more = ok && (n >= 2 || !r.More), more || r.More
	}
	slices.SortFunc(nearest, func(a, b generation) int { return int(b.rev - a.rev) })
	whole := len(nearest) <= 2 && !more
	nearest = append(nearest, generation{}, generation{})
	return ahead{rev: rev, near: nearest[0], far: nearest[1], whole: whole}, ok
}

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
	t.lease.burnLocked(t.n)
	t.goneLocked(0) // nothing of ours is there to delete
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

// look asks who is ahead as of revision at, by a read that any member with that revision may answer, or as of now, by
// a linearizable one, if at is 0. It fails with errRequeue if the ticket itself is not there.
func (t *Ticket) look(ctx context.Context, at int64) (ahead, error) {
	ctx, release := t.lease.bound(ctx)
	defer release()
	limit := int64(3) // the ticket itself, and two
	for {
		answers, rev, err := t.group.q.c.ReadAt(ctx, at, func(at int64) clientv3.Op { return t.looking(limit, at) })
		if err != nil {
			return ahead{}, err
		}
		a, ok := t.ahead(answers, rev)
		if !ok {
			limit = 0 // names nest here: list them all
			continue
		}
		for _, r := range answers {
			if generationOf(r.Kvs, t.key, t.rev) != nil {
				if t.drain != nil {
					t.drain.seen = rev
				}
				return a, nil
			}
		}
		t.Removed(rev)
		return ahead{}, errRequeue
	}
}

// looking is one request for what is ahead and for the ticket itself, which a class that shares does not find in its
// gates.
func (t *Ticket) looking(limit, at int64) clientv3.Op {
	ops := t.asking(limit, t.rev, at)
	if len(ops) == 1 {
		return ops[0]
	}
	return clientv3.OpTxn(nil, append(ops, clientv3.OpGet(t.key, append(rpc.AsOf(at), clientv3.WithKeysOnly())...)), nil)
}

// crossOff tells what is ahead once p, which was, has gone by revision at, 0 if that is not known. Two that went in one
// revision may have been deleted with the whole queue: then it looks, so that no more than one in a queue holds until its check.
func (t *Ticket) crossOff(ctx context.Context, a ahead, p generation, at int64) (ahead, error) {
	if a.whole && at > 0 && at != a.gone {
		return a.without(p, at), nil
	}
	return t.look(ctx, at)
}

// still makes a hold as of revision at, if that is later.
func (t *Ticket) still(ctx context.Context, a ahead, at int64) (ahead, error) {
	if at <= a.rev {
		return a, nil
	}
	later, err := t.askFor(ctx, a, at)
	if err != nil {
		return t.look(ctx, at)
	}
	return later, nil
}

// askFor asks for those of a and for the ticket itself, as of revision at, 0 for now. Nobody can come between tickets that
// exist, so as long as they do, it says as much as look does, and costs the same in a queue of any length.
func (t *Ticket) askFor(ctx context.Context, a ahead, at int64) (ahead, error) {
	want := []generation{{t.key, t.rev}, a.near}
	if !a.alone() {
		want = append(want, a.far)
	}
	ops := make([]clientv3.Op, len(want))
	for i, p := range want {
		ops[i] = clientv3.OpGet(p.key, append(rpc.AsOf(at), clientv3.WithKeysOnly())...)
	}
	ctx, cancel := context.WithTimeout(ctx, t.group.q.c.AttemptTimeout(0))
	defer cancel()
	resp, err := t.group.q.c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return a, err
	}
	if at == 0 {
		at = resp.Header.Revision
	}
	for i, p := range want {
		switch {
		case generationOf(resp.Responses[i].GetResponseRange().Kvs, p.key, p.rev) != nil:
		case i > 0 && a.whole:
			a = a.without(p, at)
		default:
			return a, errNotThere
		}
	}
	if a.rev = at; a.gone <= at {
		a.gone = 0
	}
	return a, nil
}

// errNotThere says that the ticket has gone, or one ahead of it and not all are known.
var errNotThere = errors.New("etcdlock: not there any more")

// generationOf returns the key that was created at rev, nil if it is not among kvs.
func generationOf(kvs []*mvccpb.KeyValue, key string, rev int64) *mvccpb.KeyValue {
	for _, kv := range kvs {
		if string(kv.Key) == key && kv.CreateRevision == rev {
			return kv
		}
	}
	return nil
}
