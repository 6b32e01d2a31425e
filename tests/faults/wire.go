//go:build unix

package main

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// wire watches one client's requests and computes from them alone until when
// etcd's own rules promise the lease. It is the judge in trials in which etcd
// removes a ticket: it shares no code with the implementations.
type wire struct {
	mu       sync.Mutex
	read     time.Time // when the last acknowledged linearizable request was sent
	readTerm uint64
	leases   map[int64]bounds
}

// bounds are until when a lease is promised; zero if no renewal was answered.
type bounds struct {
	ruled time.Time // read sent + TTL, by the rule on terms
	naive time.Time // renewal sent + TTL
}

func (w *wire) bounds(lease clientv3.LeaseID) bounds {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leases[int64(lease)]
}

func (w *wire) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	sent := time.Now()
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err != nil {
		return err
	}
	var h *pb.ResponseHeader
	switch r := reply.(type) {
	case *pb.RangeResponse:
		if q, ok := req.(*pb.RangeRequest); ok && !q.Serializable {
			h = r.Header
		}
	case *pb.TxnResponse:
		h = r.Header
	}
	if h == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if sent.After(w.read) {
		w.read, w.readTerm = sent, h.RaftTerm
	}
	return nil
}

func (w *wire) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	if err != nil || method != "/etcdserverpb.Lease/LeaseKeepAlive" {
		return s, err
	}
	return &renewals{ClientStream: s, w: w}, nil
}

// renewals pairs each answer of a keepalive stream with its request: answers
// come in the order of the requests.
type renewals struct {
	grpc.ClientStream
	w    *wire
	mu   sync.Mutex
	sent []renewal
}

type renewal struct {
	sent, read time.Time
	term       uint64
}

func (s *renewals) SendMsg(m any) error {
	s.w.mu.Lock()
	r := renewal{time.Now(), s.w.read, s.w.readTerm}
	s.w.mu.Unlock()
	s.mu.Lock()
	s.sent = append(s.sent, r)
	s.mu.Unlock()
	return s.ClientStream.SendMsg(m)
}

func (s *renewals) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	r, ok := m.(*pb.LeaseKeepAliveResponse)
	if err != nil || !ok {
		return err
	}
	s.mu.Lock()
	var q renewal
	if len(s.sent) > 0 {
		q, s.sent = s.sent[0], s.sent[1:]
	}
	s.mu.Unlock()
	if r.TTL <= 0 || q.sent.IsZero() {
		return nil
	}
	ttl := time.Duration(r.TTL) * time.Second
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	b := s.w.leases[r.ID]
	if until := q.sent.Add(ttl); until.After(b.naive) {
		b.naive = until
	}
	inTime := b.ruled.IsZero() || time.Now().Before(b.ruled)
	if until := q.read.Add(ttl); !q.read.IsZero() && inTime && r.Header.GetRaftTerm() >= q.term && until.After(b.ruled) {
		b.ruled = until
	}
	s.w.leases[r.ID] = b
	return nil
}
