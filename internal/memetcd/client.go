package memetcd

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file makes clients: etcd's own, with this server in the place of the connection.

// Client returns a client of the cluster, which is closed by its Close or when ctx ends. The client's number, by which
// requests and commits name it, counts from 1 in the order of the calls.
func (s *Server) Client(ctx context.Context) *clientv3.Client {
	s.mu.Lock()
	s.clients++
	c := &conn{s: s, id: s.clients}
	s.mu.Unlock()
	client := clientv3.NewCtxClient(ctx)
	c.client = client.Ctx()
	client.KV = clientv3.NewKVFromKVClient(kvConn{conn: c}, client)
	client.Lease = clientv3.NewLeaseFromLeaseClient(c, client, 0)
	client.Watcher = clientv3.NewWatchFromWatchClient(c, client)
	client.Cluster = clientv3.NewClusterFromClusterClient(clusterConn{conn: c}, client)
	context.AfterFunc(c.client, func() {
		_ = client.Watcher.Close()
		_ = client.Lease.Close()
	})
	return client
}

// kvConn is the part of keys.
type kvConn struct{ *conn }

func (c kvConn) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	q := Request{Kind: Range, Keys: []string{string(r.Key)}, Body: r}
	return send(ctx, c.conn, q, r.Serializable, func(member int) (*pb.RangeResponse, error) {
		if err := admitRange(r); err != nil {
			return nil, err
		}
		resp, err := c.s.readLocked(r, c.s.curLocked(member, r.Serializable))
		if err == nil {
			resp.Header = c.s.headerLocked(resp.Header.Revision, member)
		}
		return resp, err
	})
}

// curLocked is the revision that a read gets: a linearizable one waits for its member.
func (s *Server) curLocked(member int, local bool) int64 {
	if local {
		return s.appliedLocked(member)
	}
	return s.rev
}

func (c kvConn) RangeStream(context.Context, *pb.RangeRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[pb.RangeStreamResponse], error) {
	return nil, status.Error(codes.Unimplemented, "memetcd: RangeStream")
}

// one runs a write as a transaction of one operation.
func (c kvConn) one(ctx context.Context, q Request, op *pb.RequestOp, admit error) (*pb.ResponseOp, error) {
	r := &pb.TxnRequest{Success: []*pb.RequestOp{op}}
	return send(ctx, c.conn, q, false, func(member int) (*pb.ResponseOp, error) {
		if admit != nil {
			return nil, admit
		}
		resp, err := c.s.txnLocked(r, c.s.rev, c.id)
		if err != nil {
			return nil, err
		}
		h := c.s.headerLocked(resp.Header.Revision, member)
		if put := resp.Responses[0].GetResponsePut(); put != nil {
			put.Header = h
		} else {
			resp.Responses[0].GetResponseDeleteRange().Header = h
		}
		return resp.Responses[0], nil
	})
}

func (c kvConn) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	q := Request{Kind: Put, Write: true, Keys: []string{string(r.Key)}, Body: r}
	resp, err := c.one(ctx, q, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}, admitPut(r))
	return resp.GetResponsePut(), err
}

func (c kvConn) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	q := Request{Kind: Delete, Write: true, Keys: []string{string(r.Key)}, Body: r}
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	resp, err := c.one(ctx, q, op, admitDelete(r))
	return resp.GetResponseDeleteRange(), err
}

func (c kvConn) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	local := serializable(r)
	q := Request{Kind: Txn, Write: !readOnly(r), Keys: keysOf(r, nil), Body: r}
	return send(ctx, c.conn, q, local, func(member int) (*pb.TxnResponse, error) {
		if err := admitTxn(r, c.s.cfg.MaxTxnOps); err != nil {
			return nil, err
		}
		resp, err := c.s.txnLocked(r, c.s.curLocked(member, local), c.id)
		if err == nil {
			resp.Header = c.s.headerLocked(resp.Header.Revision, member)
		}
		return resp, err
	})
}

// keysOf lists the keys of a transaction's operations, in both branches.
func keysOf(r *pb.TxnRequest, keys []string) []string {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			switch {
			case op.GetRequestRange() != nil:
				keys = append(keys, string(op.GetRequestRange().Key))
			case op.GetRequestPut() != nil:
				keys = append(keys, string(op.GetRequestPut().Key))
			case op.GetRequestDeleteRange() != nil:
				keys = append(keys, string(op.GetRequestDeleteRange().Key))
			case op.GetRequestTxn() != nil:
				keys = keysOf(op.GetRequestTxn(), keys)
			}
		}
	}
	return keys
}

func (c kvConn) Compact(ctx context.Context, r *pb.CompactionRequest, _ ...grpc.CallOption) (*pb.CompactionResponse, error) {
	return send(ctx, c.conn, Request{Kind: Compact, Write: true, Body: r}, false, func(member int) (*pb.CompactionResponse, error) {
		if err := c.s.compactLocked(r.Revision); err != nil {
			return nil, err
		}
		return &pb.CompactionResponse{Header: c.s.headerLocked(c.s.rev, member)}, nil
	})
}

// clusterConn is the part of members, of which only the list is there.
type clusterConn struct {
	*conn
	pb.ClusterClient
}

func (c clusterConn) MemberList(ctx context.Context, r *pb.MemberListRequest, _ ...grpc.CallOption) (*pb.MemberListResponse, error) {
	return send(ctx, c.conn, Request{Kind: Members, Body: r}, false, func(member int) (*pb.MemberListResponse, error) {
		resp := &pb.MemberListResponse{Header: c.s.headerLocked(c.s.rev, member)}
		for i := range c.s.members {
			resp.Members = append(resp.Members, &pb.Member{ID: uint64(i) + 1, Name: "m"})
		}
		return resp, nil
	})
}
