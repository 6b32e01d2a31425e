package memetcd

import (
	"bytes"
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file has transactions. Every write is one, if only of one operation.

func compare(a, b int64) int { return cmp.Compare(a, b) }

// txn is one transaction under way, with mu held from its first step to its last.
type txn struct {
	s      *Server
	cur    int64 // what it reads, before its own writes
	events []*mvccpb.Event
}

// rev is what its reads see, and what its answers name.
func (t *txn) rev() int64 {
	if len(t.events) > 0 {
		return t.cur + 1
	}
	return t.cur
}

// txnLocked runs a transaction; cur is the revision that its member has got to.
func (s *Server) txnLocked(r *pb.TxnRequest, cur int64, client int) (*pb.TxnResponse, error) {
	t := &txn{s: s, cur: cur}
	// The comparisons of all levels come first, on what there was before; then whether everything is allowed.
	paths := map[*pb.TxnRequest]bool{}
	t.decide(r, paths)
	if err := t.check(r, paths); err != nil {
		return nil, err
	}
	resp, err := t.run(r, paths)
	if err != nil {
		return nil, err
	}
	resp.Header.Revision = t.rev()
	s.commitLocked(t.events, ByRequest, client)
	return resp, nil
}

func branch(r *pb.TxnRequest, paths map[*pb.TxnRequest]bool) []*pb.RequestOp {
	if paths[r] {
		return r.Success
	}
	return r.Failure
}

func (t *txn) decide(r *pb.TxnRequest, paths map[*pb.TxnRequest]bool) {
	paths[r] = true
	for _, c := range r.Compare {
		if !t.holds(c) {
			paths[r] = false
			break
		}
	}
	for _, op := range branch(r, paths) {
		if nested := op.GetRequestTxn(); nested != nil {
			t.decide(nested, paths)
		}
	}
}

// holds is one comparison, of a range for every key there. Where there is none, a value is never as compared, and
// everything else is 0.
func (t *txn) holds(c *pb.Compare) bool {
	kvs := t.s.rangeLocked(c.Key, c.RangeEnd, t.cur)
	if len(kvs) == 0 {
		return c.Target != pb.Compare_VALUE && holdsFor(c, &mvccpb.KeyValue{})
	}
	for _, kv := range kvs {
		if !holdsFor(c, kv) {
			return false
		}
	}
	return true
}

func holdsFor(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	var result int
	switch c.Target {
	case pb.Compare_VALUE:
		result = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		result = compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		result = compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		result = compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		result = compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return result == 0
	case pb.Compare_NOT_EQUAL:
		return result != 0
	case pb.Compare_GREATER:
		return result > 0
	default:
		return result < 0
	}
}

// check finds what would fail, before anything is written.
func (t *txn) check(r *pb.TxnRequest, paths map[*pb.TxnRequest]bool) error {
	for _, op := range branch(r, paths) {
		var err error
		switch {
		case op.GetRequestRange() != nil:
			if rev := op.GetRequestRange().Revision; rev > t.cur {
				err = rpctypes.ErrGRPCFutureRev
			} else if rev != 0 && rev < t.s.compacted {
				err = rpctypes.ErrGRPCCompacted
			}
		case op.GetRequestPut() != nil:
			err = t.checkPut(op.GetRequestPut())
		case op.GetRequestTxn() != nil:
			err = t.check(op.GetRequestTxn(), paths)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) checkPut(r *pb.PutRequest) error {
	if r.Lease != 0 && t.s.leases[r.Lease] == nil {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	if (r.IgnoreLease || r.IgnoreValue) && t.s.getLocked(string(r.Key), t.cur) == nil {
		return rpctypes.ErrGRPCKeyNotFound
	}
	return nil
}

func (t *txn) run(r *pb.TxnRequest, paths map[*pb.TxnRequest]bool) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: paths[r]}
	for _, op := range branch(r, paths) {
		answer := &pb.ResponseOp{}
		switch {
		case op.GetRequestRange() != nil:
			got, err := t.s.readLocked(op.GetRequestRange(), t.rev())
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: got}
		case op.GetRequestPut() != nil:
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: t.put(op.GetRequestPut())}
		case op.GetRequestDeleteRange() != nil:
			deleted := t.delete(op.GetRequestDeleteRange())
			answer.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: deleted}
		case op.GetRequestTxn() != nil:
			nested, err := t.run(op.GetRequestTxn(), paths)
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: nested}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp, nil
}

func (t *txn) put(r *pb.PutRequest) *pb.PutResponse {
	key, rev := string(r.Key), t.cur+1
	old := t.s.getLocked(key, rev)
	kv := &mvccpb.KeyValue{
		Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: rev, ModRevision: rev, Version: 1,
	}
	resp := &pb.PutResponse{Header: &pb.ResponseHeader{Revision: rev}}
	if old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if r.IgnoreValue {
			kv.Value = old.Value
		}
		if r.IgnoreLease {
			kv.Lease = old.Lease
		}
		if r.PrevKv {
			resp.PrevKv = clone(old)
		}
	}
	t.s.setLocked(key, rev, kv)
	t.events = append(t.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv, PrevKv: old})
	return resp
}

func (t *txn) delete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	kvs := t.s.rangeLocked(r.Key, r.RangeEnd, t.rev())
	resp := &pb.DeleteRangeResponse{Deleted: int64(len(kvs))}
	for _, kv := range kvs {
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, clone(kv))
		}
		t.s.setLocked(string(kv.Key), t.cur+1, nil)
		t.events = append(t.events, &mvccpb.Event{
			Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: t.cur + 1}, PrevKv: kv,
		})
	}
	resp.Header = &pb.ResponseHeader{Revision: t.rev()}
	return resp
}
