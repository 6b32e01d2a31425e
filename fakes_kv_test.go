package etcdlock

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has the keys of the etcd in memory (see fakes_test.go): ranges, transactions and watches.

// deleteLocked deletes a key as of the current revision and tells the watches.
func (e *etcd) deleteLocked(key string) {
	delete(e.keys, key)
	ev := &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: e.rev}}
	for w := range e.watches {
		if within([]byte(key), w.from, w.to) {
			w.events <- withHeader(clientv3.WatchResponse{Events: []*clientv3.Event{ev}}, e.header(fault{}))
		}
	}
}

// withHeader adds the header, which a client's watch response holds as a value up to 3.6 and as a pointer from 3.7 on.
func withHeader(resp clientv3.WatchResponse, header *pb.ResponseHeader) clientv3.WatchResponse {
	field, h := reflect.ValueOf(&resp.Header).Elem(), reflect.ValueOf(header)
	if field.Kind() == reflect.Struct {
		h = h.Elem()
	}
	field.Set(h)
	return resp
}

func within(key, from, to []byte) bool {
	if len(to) == 0 {
		return bytes.Equal(key, from)
	}
	return bytes.Compare(key, from) >= 0 && bytes.Compare(key, to) < 0
}

func (e *etcd) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key, opts...)
	// Large enough for every event of these tests, so that nothing blocks with mu held.
	w := &fakeWatch{op.KeyBytes(), op.RangeBytes(), make(chan clientv3.WatchResponse, 1024)}
	var f fault
	e.mu.Lock()
	e.calls["watch"]++
	md, _ := metadata.FromOutgoingContext(ctx)
	e.stream = strings.Join(md.Get("etcdlock-stream"), "")
	if e.bend != nil {
		f = e.bend("watch")
	}
	if !f.lost && f.err == nil {
		e.watches[w] = struct{}{}
		w.events <- withHeader(clientv3.WatchResponse{Created: true}, e.header(f))
	}
	e.mu.Unlock()
	if f.lost {
		<-ctx.Done() // the client's Watch takes until the server has answered
	}
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watches, w)
		close(w.events)
	})
	return w.events
}

func (e *etcd) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (resp *pb.RangeResponse, err error) {
	err = e.serve(ctx, "read", func(f fault) error {
		if e.denied != "" && string(r.Key) == e.denied {
			return errDenied
		}
		resp = e.rangeLocked(r)
		resp.Header = e.header(f)
		return nil
	})
	return resp, err
}

func (e *etcd) rangeLocked(r *pb.RangeRequest) *pb.RangeResponse {
	resp := &pb.RangeResponse{}
	keys := e.keys
	if len(r.RangeEnd) == 0 { // one alone: tests with thousands of keys ask for each
		keys = map[string]*mvccpb.KeyValue{}
		if kv := e.keys[string(r.Key)]; kv != nil {
			keys[string(r.Key)] = kv
		}
	}
	for key, kv := range keys {
		if within([]byte(key), r.Key, r.RangeEnd) && (r.MaxCreateRevision == 0 || kv.CreateRevision <= r.MaxCreateRevision) {
			resp.Kvs = append(resp.Kvs, kv)
		}
	}
	slices.SortFunc(resp.Kvs, func(a, b *mvccpb.KeyValue) int {
		order := int(a.CreateRevision - b.CreateRevision)
		if r.SortTarget == pb.RangeRequest_KEY {
			order = strings.Compare(string(a.Key), string(b.Key))
		}
		if r.SortOrder == pb.RangeRequest_DESCEND {
			order = -order
		}
		return order
	})
	resp.Count = int64(len(resp.Kvs))
	if r.Limit > 0 && resp.Count > r.Limit {
		resp.Kvs, resp.More = resp.Kvs[:r.Limit], true
	}
	return resp
}

func (e *etcd) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (resp *pb.TxnResponse, err error) {
	call := "read"
	for _, op := range slices.Concat(r.Success, r.Failure) {
		if op.GetRequestRange() == nil {
			call = "write"
		}
	}
	err = e.serve(ctx, call, func(f fault) error {
		if e.maxOps > 0 && !fits(r, e.maxOps) {
			return rpctypes.ErrTooManyOps
		}
		for _, op := range r.Success {
			if key := string(op.GetRequestRange().GetKey()); key != "" && key == e.denied {
				return errDenied
			}
		}
		resp, err = e.txnLocked(r, e.rev+1)
		if err == nil {
			resp.Header = e.header(f)
		}
		return err
	})
	return resp, err
}

func (e *etcd) DeleteRange(
	ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption,
) (resp *pb.DeleteRangeResponse, err error) {
	err = e.serve(ctx, "write", func(f fault) error {
		resp = &pb.DeleteRangeResponse{}
		if key := string(r.Key); e.keys[key] != nil {
			resp.Deleted = 1
			e.rev++
			e.deleteLocked(key)
		}
		resp.Header = e.header(f)
		return nil
	})
	return resp, err
}

// fits is etcd's own rule: what a nested Txn may have is what the outer one has left.
func fits(r *pb.TxnRequest, limit int) bool {
	n := max(len(r.Compare), len(r.Success), len(r.Failure))
	if n > limit {
		return false
	}
	for _, op := range slices.Concat(r.Success, r.Failure) {
		if nested := op.GetRequestTxn(); nested != nil && !fits(nested, limit-n) {
			return false
		}
	}
	return true
}

// txnLocked runs a Txn, nested or not, whose writes are of revision rev.
func (e *etcd) txnLocked(r *pb.TxnRequest, rev int64) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		var newest int64 // create revision of a key compared, 0 without one
		for key, kv := range e.keys {
			if within([]byte(key), c.Key, c.RangeEnd) {
				newest = max(newest, kv.CreateRevision)
			}
		}
		switch {
		case c.Target == pb.Compare_CREATE && c.Result == pb.Compare_EQUAL && len(c.RangeEnd) == 0:
			resp.Succeeded = resp.Succeeded && newest == c.GetCreateRevision()
		case c.Target == pb.Compare_CREATE && c.Result == pb.Compare_LESS:
			resp.Succeeded = resp.Succeeded && newest < c.GetCreateRevision()
		default:
			return nil, errors.New("the fake knows create revisions only, equal or less")
		}
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		if op.GetRequestRange() != nil {
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
				ResponseRange: e.rangeLocked(op.GetRequestRange())}})
			continue
		}
		if nested := op.GetRequestTxn(); nested != nil {
			answer, err := e.txnLocked(nested, rev)
			if err != nil {
				return nil, err
			}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: answer}})
			continue
		}
		e.rev = rev
		if put := op.GetRequestPut(); put != nil {
			if e.leases[clientv3.LeaseID(put.Lease)] == nil {
				return nil, rpctypes.ErrLeaseNotFound
			}
			e.keys[string(put.Key)] = &mvccpb.KeyValue{
				Key: put.Key, Value: put.Value, Lease: put.Lease, CreateRevision: e.rev, ModRevision: e.rev, Version: 1}
			resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{}})
			continue
		}
		key, deleted := string(op.GetRequestDeleteRange().Key), int64(0)
		if e.keys[key] != nil {
			deleted = 1
			e.deleteLocked(key)
		}
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
			ResponseDeleteRange: &pb.DeleteRangeResponse{Deleted: deleted}}})
	}
	return resp, nil
}
