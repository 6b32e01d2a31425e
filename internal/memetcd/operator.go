package memetcd

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file has what operators do, and time.

// Put writes a key, on a lease or (0) on none.
func (s *Server) Put(key, value string, lease int64) {
	s.do(func() {
		t := &txn{s: s, cur: s.rev}
		t.put(&pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease})
		s.commitLocked(t.events, ByOperator, 0)
	})
}

// Delete removes a key.
func (s *Server) Delete(key string) { s.remove(&pb.DeleteRangeRequest{Key: []byte(key)}) }

// DeletePrefix removes everything under a prefix, in one revision.
func (s *Server) DeletePrefix(prefix string) {
	s.remove(&pb.DeleteRangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix)})
}

func (s *Server) remove(r *pb.DeleteRangeRequest) {
	s.do(func() {
		t := &txn{s: s, cur: s.rev}
		t.delete(r)
		s.commitLocked(t.events, ByOperator, 0)
	})
}

// Leases lists the leases that there are.
func (s *Server) Leases() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int64
	for id := range s.leases {
		ids = append(ids, id)
	}
	return ids
}

// Revoke ends a lease, with its keys.
func (s *Server) Revoke(id int64) { s.end(id, ByOperator) }

// Expire ends a lease as if nobody had renewed it in time.
func (s *Server) Expire(id int64) { s.end(id, ByExpiry) }

func (s *Server) end(id int64, cause Cause) {
	s.do(func() {
		if l := s.leases[id]; l != nil {
			s.endLocked(l, cause, 0)
		}
	})
}

// Compact forgets the history before rev; it does nothing where that is not possible.
func (s *Server) Compact(rev int64) {
	s.do(func() { _ = s.compactLocked(rev) })
}

// Advance lets the servers' clock alone go on by d: the machine of the clients was suspended. Leases whose time is up
// by then go at once.
func (s *Server) Advance(d time.Duration) {
	s.do(func() {
		s.ahead += d
		for _, l := range s.leases {
			s.expireLocked(l)
			if s.leases[l.id] == l {
				l.timer.Reset(l.expiry.Sub(s.serverNow()))
			}
		}
	})
}

// Renew renews a lease as somebody else who uses it would.
func (s *Server) Renew(id int64) {
	s.do(func() {
		if l := s.leases[id]; l != nil {
			s.renewLocked(l)
		}
	})
}
