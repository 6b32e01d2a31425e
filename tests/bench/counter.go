package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// A kind is one sort of request that a client can send. Reads are told apart
// by what they cost the cluster: a linearizable one asks the leader first.
type kind int

const (
	txnWrite kind = iota
	txnRead
	rangeLinear
	rangeSerial
	put
	del
	grant
	revoke
	keepAlive
	watchCreate
	watchCancel
	other
	kinds
)

var kindNames = [kinds]string{
	"txn", "read-only txn", "linearizable range", "serializable range", "put", "delete",
	"grant", "revoke", "keepalive", "watch", "watch cancel", "other",
}

type counts [kinds]int64

func (c counts) sub(d counts) counts {
	for i := range c {
		c[i] -= d[i]
	}
	return c
}

func (c counts) total() int64 {
	var n int64
	for _, v := range c {
		n += v
	}
	return n
}

// String names what was sent, and how often.
func (c counts) String() string {
	var parts []string
	for k, n := range c {
		if n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kindNames[k]))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// A counter sees every request of one client. It sits inside the client's
// retry interceptor, so a request that is sent twice counts twice.
type counter struct {
	n            [kinds]atomic.Int64
	watchStreams atomic.Int64 // open now
	events       atomic.Int64 // answers of watches that tell of events
	eventBytes   atomic.Int64 // their size

	// Of the newest of each, in ns of time.Since(epoch).
	sentTxn   atomic.Int64 // a Txn or delete was handed to gRPC
	lastTxn   atomic.Int64 // a Txn was answered
	lastEvent atomic.Int64 // an event came up from gRPC
}

var epoch = time.Now()

func (c *counter) snapshot() counts {
	var s counts
	for i := range s {
		s[i] = c.n[i].Load()
	}
	return s
}

func (c *counter) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	}
}

func (c *counter) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	k := kindOf(req)
	c.n[k].Add(1)
	if k == txnWrite || k == del {
		c.sentTxn.Store(int64(time.Since(epoch)))
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if k == txnWrite && err == nil {
		c.lastTxn.Store(int64(time.Since(epoch)))
	}
	return err
}

func kindOf(req any) kind {
	switch r := req.(type) {
	case *pb.TxnRequest:
		if writes(r) {
			return txnWrite
		}
		return txnRead
	case *pb.RangeRequest:
		if r.Serializable {
			return rangeSerial
		}
		return rangeLinear
	case *pb.PutRequest:
		return put
	case *pb.DeleteRangeRequest:
		return del
	case *pb.LeaseGrantRequest:
		return grant
	case *pb.LeaseRevokeRequest:
		return revoke
	}
	return other
}

// writes reports whether a Txn can write: one that cannot is served as a read
// and leaves no raft entry.
func writes(t *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{t.Success, t.Failure} {
		for _, op := range ops {
			if op.GetRequestRange() == nil {
				return true
			}
		}
	}
	return false
}

func (c *counter) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil {
		return s, err
	}
	cs := &countedStream{ClientStream: s, c: c, watch: method == "/etcdserverpb.Watch/Watch"}
	if cs.watch {
		c.watchStreams.Add(1)
	}
	return cs, nil
}

type countedStream struct {
	grpc.ClientStream
	c      *counter
	watch  bool
	closed atomic.Bool
}

func (s *countedStream) SendMsg(m any) error {
	switch r := m.(type) {
	case *pb.LeaseKeepAliveRequest:
		s.c.n[keepAlive].Add(1)
	case *pb.WatchRequest:
		switch {
		case r.GetCreateRequest() != nil:
			s.c.n[watchCreate].Add(1)
		case r.GetCancelRequest() != nil:
			s.c.n[watchCancel].Add(1)
		default:
			s.c.n[other].Add(1)
		}
	}
	return s.ClientStream.SendMsg(m)
}

func (s *countedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if r, ok := m.(*pb.WatchResponse); ok && len(r.Events) > 0 {
		s.c.lastEvent.Store(int64(time.Since(epoch)))
		s.c.events.Add(1)
		s.c.eventBytes.Add(int64(proto.Size(r)))
	}
	if err != nil && s.watch && s.closed.CompareAndSwap(false, true) {
		s.c.watchStreams.Add(-1)
	}
	if err == io.EOF { //nolint:errorlint // gRPC compares it, unwrapped
		return io.EOF
	}
	return err
}
