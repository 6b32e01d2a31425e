package memetcd

import (
	"context"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file has leases. One that is not renewed goes exactly when its time is up, which is the earliest that etcd may.

type lease struct {
	id     int64
	ttl    int64     // as granted, in seconds
	expiry time.Time // by the servers' clock
	timer  *time.Timer
}

const maxTTL = 9000000000

// serverNow is the servers' clock, which goes on while the caller's machine sleeps.
func (s *Server) serverNow() time.Time { return time.Now().Add(s.ahead) }

func (s *Server) grantLocked(id, ttl int64) (*lease, error) {
	if ttl > maxTTL {
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	if id == 0 {
		s.lastLease++
		id = s.lastLease
	}
	if s.leases[id] != nil {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	l := &lease{id: id, ttl: max(ttl, s.cfg.MinTTL)}
	l.timer = time.AfterFunc(time.Hour, func() { s.do(func() { s.expireLocked(l) }) })
	s.leases[id] = l
	s.renewLocked(l)
	return l, nil
}

func (s *Server) renewLocked(l *lease) {
	d := time.Duration(min(l.ttl, int64(time.Duration(1<<62)/time.Second))) * time.Second
	l.expiry = s.serverNow().Add(d)
	l.timer.Reset(d)
}

// expireLocked runs when the lease's timer has fired, which a renewal may have overtaken.
func (s *Server) expireLocked(l *lease) {
	if s.leases[l.id] != l {
		return
	}
	if left := l.expiry.Sub(s.serverNow()); left > 0 {
		l.timer.Reset(left)
		return
	}
	s.endLocked(l, ByExpiry, 0)
}

// endLocked removes a lease and what is attached to it, in one revision.
func (s *Server) endLocked(l *lease, cause Cause, client int) {
	l.timer.Stop()
	delete(s.leases, l.id)
	t := &txn{s: s, cur: s.rev}
	for _, key := range s.attachedLocked(l.id) {
		t.delete(&pb.DeleteRangeRequest{Key: []byte(key)})
	}
	s.commitLocked(t.events, cause, client)
}

// attachedLocked lists the keys on a lease, sorted.
func (s *Server) attachedLocked(id int64) []string {
	var keys []string
	for _, key := range s.index {
		if kv := s.getLocked(key, s.rev); kv != nil && kv.Lease == id {
			keys = append(keys, key)
		}
	}
	return keys
}

func (c *conn) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest, _ ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	return sendVerdict(ctx, c, Request{Kind: Grant, Write: true, Body: r}, false, func(member int, v Verdict) (*pb.LeaseGrantResponse, error) {
		ttl := r.TTL
		if v.TTL != 0 {
			ttl = v.TTL
		}
		l, err := c.s.grantLocked(r.ID, ttl)
		if err != nil {
			return nil, err
		}
		return &pb.LeaseGrantResponse{Header: c.s.headerLocked(c.s.rev, member), ID: l.id, TTL: l.ttl}, nil
	})
}

func (c *conn) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest, _ ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
	return send(ctx, c, Request{Kind: Revoke, Write: true, Body: r}, false, func(member int) (*pb.LeaseRevokeResponse, error) {
		l := c.s.leases[r.ID]
		if l == nil {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
		c.s.endLocked(l, ByRevoke, c.id)
		return &pb.LeaseRevokeResponse{Header: c.s.headerLocked(c.s.rev, member)}, nil
	})
}

func (c *conn) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error) {
	return send(ctx, c, Request{Kind: TTL, Body: r}, false, func(member int) (*pb.LeaseTimeToLiveResponse, error) {
		resp := &pb.LeaseTimeToLiveResponse{Header: c.s.headerLocked(c.s.rev, member), ID: r.ID, TTL: -1}
		if l := c.s.leases[r.ID]; l != nil {
			resp.TTL, resp.GrantedTTL = int64(l.expiry.Sub(c.s.serverNow())/time.Second), l.ttl
			if r.Keys {
				for _, key := range c.s.attachedLocked(r.ID) {
					resp.Keys = append(resp.Keys, []byte(key))
				}
			}
		}
		return resp, nil
	})
}

func (c *conn) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest, _ ...grpc.CallOption) (*pb.LeaseLeasesResponse, error) {
	return send(ctx, c, Request{Kind: TTL, Body: r}, false, func(member int) (*pb.LeaseLeasesResponse, error) {
		resp := &pb.LeaseLeasesResponse{Header: c.s.headerLocked(c.s.rev, member)}
		for id := range c.s.leases {
			resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
		}
		slices.SortFunc(resp.Leases, func(a, b *pb.LeaseStatus) int { return compare(a.ID, b.ID) })
		return resp, nil
	})
}

// keepAlive is one stream of renewals. Each is a request of its own.
type keepAlive struct {
	grpc.ClientStream
	ctx  context.Context
	c    *conn
	asks chan int64
}

func (c *conn) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	if c.client.Err() != nil {
		return nil, errClosed
	}
	return &keepAlive{ctx: ctx, c: c, asks: make(chan int64, 64)}, nil
}

// Send asks for one renewal.
func (k *keepAlive) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case k.asks <- r.ID:
		return nil
	case <-k.ctx.Done():
		return io.EOF
	}
}

// CloseSend says that no more is sent.
func (k *keepAlive) CloseSend() error { return nil }

// Recv waits for the answer to the next renewal.
func (k *keepAlive) Recv() (*pb.LeaseKeepAliveResponse, error) {
	var id int64
	select {
	case id = <-k.asks:
	case <-k.ctx.Done():
		return nil, status.FromContextError(k.ctx.Err()).Err()
	case <-k.c.client.Done():
		return nil, errClosed
	}
	s, body := k.c.s, &pb.LeaseKeepAliveRequest{ID: id}
	return sendVerdict(k.ctx, k.c, Request{Kind: KeepAlive, Body: body}, true, func(member int, v Verdict) (*pb.LeaseKeepAliveResponse, error) {
		// The header is made before the renewal, as etcd does.
		resp := &pb.LeaseKeepAliveResponse{Header: s.headerLocked(s.rev, member), ID: id}
		l := s.leases[id]
		switch {
		case v.Unheard:
		case v.Hollow:
			resp.Header.RaftTerm--
			resp.TTL = 1
			if l != nil {
				resp.TTL = l.ttl
			}
		case l != nil:
			s.renewLocked(l)
			resp.TTL = l.ttl
			if v.TTL != 0 {
				resp.TTL = v.TTL
			}
		}
		return resp, nil
	})
}
