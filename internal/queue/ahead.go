package queue

import (
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file has who is ahead of a ticket: what is known of that, what follows from a deletion without asking, and how etcd is
// asked.

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
	if t.draining() != nil {
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
				if d := t.draining(); d != nil {
					d.seen = rev
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
