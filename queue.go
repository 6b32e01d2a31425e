package etcdlock

import (
	"context"
	"errors"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has what is asked of etcd about a queue: to join it, to join it only if it is empty, and who is ahead.

// peer is one generation of some ticket's key.
type peer struct {
	key string
	rev int64 // create revision: a key can be created again, by concurrency for one
}

// view is what is directly ahead of a ticket as of one revision: nobody (the ticket holds), one ticket (which
// therefore holds), or the two nearest (of which the nearest does not hold).
type view struct {
	rev   int64
	ahead []peer // the nearest first; at most two
}

// ahead asks for the nearest limit contenders created up to the revision, 0 for no bound.
//
// The server scans the whole prefix for this; keys alone, it does so in its index.
func (ln *line) ahead(limit, upTo, at int64) clientv3.Op {
	opts := []clientv3.OpOption{
		clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(limit),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend),
	}
	if upTo > 0 {
		opts = append(opts, clientv3.WithMaxCreateRev(upTo))
	}
	if at > 0 { // the past does not change: any member that has it may answer
		opts = append(opts, clientv3.WithRev(at), clientv3.WithSerializable())
	}
	return clientv3.OpGet(ln.prefix, opts...)
}

// enqueue puts the ticket at the end of its queue: one request, which can be repeated until it is answered. The
// operations of a Txn run in order, so the range sees the queue just before the put.
//
// A second arrival, sent by us or by the etcd client on its own, finds the ticket and changes nothing. So does one that
// finds there what was put for an earlier ticket of this name: that is as good, if it has the same value.
func (t *ticket) enqueue(ctx context.Context) (view, error) {
	ctx, release := t.lease.bound(ctx)
	defer release()
	var resp *clientv3.TxnResponse
	err := t.line.s.ask(ctx, func(ctx context.Context) (err error) {
		start := now()
		resp, err = t.line.s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(t.key), "=", 0)).
			Then(t.line.ahead(2, 0, 0), clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.id))).
			Else(clientv3.OpGet(t.key)).
			Commit()
		if err != nil || now().sub(start) > time.Second {
			// This attempt may arrive long after a later one, and after the deletion; so may an earlier one of the
			// etcd client, which repeats some by itself.
			t.unsure()
		}
		return err
	})
	if err != nil {
		return view{}, t.leaseGone(err)
	}
	if !resp.Succeeded {
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return view{}, errors.New("etcdlock: bug: a ticket both exists and does not")
		}
		if !t.found(kvs[0]) {
			return view{}, errRequeue
		}
		return t.look(ctx, 0)
	}
	rev := resp.Header.Revision
	t.placed(rev)
	r := resp.Responses[0].GetResponseRange()
	if v, ok := t.view(r, rev); ok {
		return v, nil
	}
	return t.look(ctx, rev) // names nest here
}

// found takes the key that is there already for this ticket; false if it has not the ticket's value, and has to go.
func (t *ticket) found(kv *mvccpb.KeyValue) bool {
	t.placed(kv.CreateRevision)
	if string(kv.Value) == t.value {
		return true
	}
	t.unsure()
	return false
}

// leaseGone turns etcd's refusal of a dead lease into the loss that it is.
func (t *ticket) leaseGone(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.lease.end(ErrLost)
		return errRequeue
	}
	return err
}

// view reads the answer to ahead; not ok if keys of nested names crowded out the contenders.
func (t *ticket) view(r *pb.RangeResponse, rev int64) (view, bool) {
	v := view{rev: rev}
	for _, kv := range r.Kvs {
		if t.line.direct(string(kv.Key)) && string(kv.Key) != t.key && len(v.ahead) < 2 {
			v.ahead = append(v.ahead, peer{string(kv.Key), kv.CreateRevision})
		}
	}
	return v, len(v.ahead) == 2 || !r.More
}

// look asks who is ahead as of revision at, by a read that any member with that revision may answer, or as of now, by
// a linearizable one, if at is 0. It fails with errRequeue if the ticket itself is not there.
func (t *ticket) look(ctx context.Context, at int64) (view, error) {
	ctx, release := t.lease.bound(ctx)
	defer release()
	limit := int64(3) // the ticket itself, and two
	for {
		var r *pb.RangeResponse
		err := t.line.s.ask(ctx, func(ctx context.Context) error {
			resp, err := t.line.s.client.Do(ctx, t.line.ahead(limit, t.rev, at))
			if err != nil {
				return err
			}
			r = (*pb.RangeResponse)(resp.Get())
			return nil
		})
		if errors.Is(err, rpctypes.ErrFutureRev) || errors.Is(err, rpctypes.ErrCompacted) {
			at = 0 // a member that lags, or a revision that was compacted away
			continue
		}
		if err != nil {
			return view{}, err
		}
		rev := at
		if rev == 0 {
			rev = r.Header.Revision
		}
		v, ok := t.view(r, rev)
		if !ok {
			limit = 0 // names nest here: list them all
			continue
		}
		if !hasKey(r.Kvs, t.key, t.rev) {
			t.removed(rev)
			return view{}, errRequeue
		}
		return v, nil
	}
}

// still makes v a view as of the later revision at. Nobody can come between tickets that exist, so as long as they do,
// asking for these few says as much as look does, and costs the same in a queue of any length.
func (t *ticket) still(ctx context.Context, v view, at int64) (view, error) {
	want := append([]peer{{t.key, t.rev}}, v.ahead...)
	ops := make([]clientv3.Op, len(want))
	for i, p := range want {
		ops[i] = clientv3.OpGet(p.key, clientv3.WithKeysOnly(), clientv3.WithSerializable(), clientv3.WithRev(at))
	}
	lctx, release := t.lease.bound(ctx)
	defer release()
	actx, cancel := context.WithTimeout(lctx, t.line.s.patience(0))
	defer cancel()
	resp, err := t.line.s.client.Txn(actx).Then(ops...).Commit()
	if err != nil {
		return t.look(ctx, at)
	}
	for i, p := range want {
		if !hasKey(resp.Responses[i].GetResponseRange().Kvs, p.key, p.rev) {
			return t.look(ctx, at)
		}
	}
	v.rev = at
	return v, nil
}

func hasKey(kvs []*mvccpb.KeyValue, key string, rev int64) bool {
	for _, kv := range kvs {
		if string(kv.Key) == key {
			return kv.CreateRevision == rev
		}
	}
	return false
}

// enqueueIfEmpty puts the ticket only if nobody is in the queue: one request, and no write when somebody is. It
// returns who holds when the ticket is not the holder.
//
// seen is the holder that an earlier call found. While it exists it holds still, since nobody can come before it; that
// is asked first, because the compare on a whole prefix reads all of it.
func (t *ticket) enqueueIfEmpty(ctx context.Context, seen peer) (*LockedError, error) {
	ln := t.line
	put := clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.id))
	first := clientv3.OpGet(ln.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	mine := clientv3.OpGet(t.key)
	below := int64(1) // the create revision that nobody in the queue may have reached
	for {
		cmps := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(ln.prefix).WithPrefix(), "<", below)}
		then, otherwise := []clientv3.Op{put}, []clientv3.Op{mine, first}
		if seen.key != "" {
			nested := clientv3.OpTxn(cmps, then, otherwise)
			cmps = []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(seen.key), "=", seen.rev)}
			then, otherwise = []clientv3.Op{clientv3.OpGet(seen.key)}, []clientv3.Op{nested}
		}
		start := now()
		actx, cancel := context.WithTimeout(ctx, ln.s.patience(4))
		resp, err := ln.s.client.Txn(actx).If(cmps...).Then(then...).Else(otherwise...).Commit()
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && ln.s.client.Ctx().Err() != nil:
			return nil, ErrClientClosed
		case err != nil:
			return nil, t.leaseGone(unanswered(err))
		}
		if now().sub(start) > time.Second {
			t.unsure() // the etcd client may have sent it more than once
		}
		answer := (*pb.TxnResponse)(resp)
		if seen.key != "" {
			if answer.Succeeded {
				return ln.locked(answer.Responses[0].GetResponseRange().Kvs[0]), nil
			}
			answer = answer.Responses[0].GetResponseTxn()
		}
		if answer.Succeeded {
			t.placed(resp.Header.Revision)
			return nil, nil //nolint:nilnil // neither locked by another nor failed: the ticket holds
		}
		kvs := answer.Responses[1].GetResponseRange().Kvs
		if mine := answer.Responses[0].GetResponseRange().Kvs; len(mine) > 0 { // it was sent twice
			if !t.found(mine[0]) || string(kvs[0].Key) != t.key {
				return nil, errRequeue
			}
			return nil, nil //nolint:nilnil // as above
		}
		if len(kvs) > 0 && ln.direct(string(kvs[0].Key)) {
			return ln.locked(kvs[0]), nil
		}
		// Names nest here. Look for a contender among all keys; if there is none, nobody may come after this look.
		head, rev, err := ln.head(ctx)
		if err != nil || head != nil {
			return ln.locked(head), err
		}
		seen, below = peer{}, rev+1
	}
}

// head returns the lowest contender as of the revision it returns, nil if there is none.
func (ln *line) head(ctx context.Context) (*mvccpb.KeyValue, int64, error) {
	kvs, rev, err := ln.list(ctx)
	if err != nil || len(kvs) == 0 {
		return nil, rev, err
	}
	return kvs[0], rev, nil
}

// list returns the contenders, the holder first.
func (ln *line) list(ctx context.Context) ([]*mvccpb.KeyValue, int64, error) {
	var resp *clientv3.GetResponse
	err := ln.s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = ln.s.client.Get(ctx, ln.prefix, clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	kvs := resp.Kvs[:0]
	for _, kv := range resp.Kvs {
		if strings.HasPrefix(string(kv.Key), ln.prefix) && ln.direct(string(kv.Key)) {
			kvs = append(kvs, kv)
		}
	}
	return kvs, resp.Header.Revision, nil
}

// locked tells that kv holds; nil for nil.
func (ln *line) locked(kv *mvccpb.KeyValue) *LockedError {
	if kv == nil {
		return nil
	}
	return &LockedError{Name: ln.name, Holder: string(kv.Value), Token: kv.CreateRevision, Key: string(kv.Key)}
}
