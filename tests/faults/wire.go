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
	mu     sync.Mutex
	reads  []answered // the last linearizable requests that were answered
	leases map[int64]bounds
}

// bounds are until when a lease is promised; zero if no renewal was answered.
type bounds struct {
	ruled time.Time  // read and renewal sent + TTL, by the rule on terms
	naive time.Time  // renewal sent + TTL
	acks  []answered // the last renewals that were answered
}

// answered is a request that was, in that term; of a renewal with the TTL.
type answered struct {
	sent time.Time
	term uint64
	ttl  time.Duration
}

// recent is how many of each are remembered: several may be under way at once, and any two make a renewal.
const recent = 16

func last(all []answered, a answered) []answered {
	all = append(all, a)
	return all[max(len(all)-recent, 0):]
}

// rule takes the last of either in: the promise goes on from whichever of two was sent first, if both were answered before
// it was over, and the renewal not in an older term than the read.
func (b *bounds) rule(reads []answered) {
	if !b.ruled.IsZero() && time.Now().After(b.ruled) {
		return
	}
	for _, r := range reads {
		for _, a := range b.acks {
			from := a.sent
			if r.sent.Before(from) {
				from = r.sent
			}
			if until := from.Add(a.ttl); a.term >= r.term && until.After(b.ruled) {
				b.ruled = until
			}
		}
	}
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
	w.reads = last(w.reads, answered{sent: sent, term: h.RaftTerm})
	for id, b := range w.leases {
		b.rule(w.reads)
		w.leases[id] = b
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
	sent []time.Time
}

func (s *renewals) SendMsg(m any) error {
	s.mu.Lock()
	s.sent = append(s.sent, time.Now())
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
	var sent time.Time
	if len(s.sent) > 0 {
		sent, s.sent = s.sent[0], s.sent[1:]
	}
	s.mu.Unlock()
	if r.TTL <= 0 || sent.IsZero() {
		return nil
	}
	ttl := time.Duration(r.TTL) * time.Second
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	b := s.w.leases[r.ID]
	if until := sent.Add(ttl); until.After(b.naive) {
		b.naive = until
	}
	b.acks = last(b.acks, answered{sent, r.Header.GetRaftTerm(), ttl})
	b.rule(s.w.reads)
	s.w.leases[r.ID] = b
	return nil
}
