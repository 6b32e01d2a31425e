package etcdlock

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file has an etcd in memory for tests of time, which run in a bubble where the real client cannot: revisions,
// leases that expire, transactions that compare create revisions, watches, and one knob that bends the answers.

// fault is what happens to one request.
type fault struct {
	lost  bool          // it never arrives; the caller waits for its own context
	err   error         // it is refused at once
	after time.Duration // it takes effect at once and is answered that much later
	again time.Duration // it takes effect once more that much later, and that answer counts
	term  uint64        // the raft term in the answer, 1 if 0
	ttl   int64         // the TTL in the answer, if not 0: what a grant gives, what a keepalive reports
	never bool          // a keepalive is answered by a leader that never heard of the lease
}

var errDenied = rpctypes.ErrPermissionDenied

var errAway = status.Error(codes.Unavailable, "connection refused")

// etcd is the server. The names of its calls are grant, keepalive, revoke, ttl, read, write and watch.
type etcd struct {
	pb.KVClient // of which Range, DeleteRange and Txn are there
	clientv3.Lease

	mu      sync.Mutex // guards what follows; never held while waiting
	bend    func(call string) fault
	rev     int64
	keys    map[string]*mvccpb.KeyValue
	leases  map[clientv3.LeaseID]*fakeLease
	watches map[*fakeWatch]struct{}
	calls   map[string]int
	last    map[string]time.Time // when the latest of each call arrived
	maxOps  int                  // --max-txn-ops, if not 0
	denied  string               // a key that may not be read
	stream  string               // which one the latest watch was for

	slept atomic.Int64 // how long the machine was suspended
}

type fakeLease struct {
	ttl    time.Duration
	expiry *time.Timer
}

type fakeWatch struct {
	from, to []byte
	events   chan clientv3.WatchResponse
}

// inBubble runs f with an etcd and fake time. The machine is never suspended unless f says so.
func inBubble(t *testing.T, f func(t *testing.T, e *etcd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &etcd{
			rev: 1, keys: map[string]*mvccpb.KeyValue{}, leases: map[clientv3.LeaseID]*fakeLease{},
			watches: map[*fakeWatch]struct{}{}, calls: map[string]int{}, last: map[string]time.Time{},
		}
		before := lease.Suspended
		lease.Suspended = func() time.Duration { return time.Duration(e.slept.Load()) }
		t.Cleanup(func() { lease.Suspended = before })
		f(t, e)
	})
}

func (e *etcd) client(t *testing.T) *clientv3.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // Close comes after the end of the test's own
	t.Cleanup(cancel)
	c := clientv3.NewCtxClient(ctx)
	c.KV, c.Lease, c.Watcher = clientv3.NewKVFromKVClient(e, nil), e, e
	return c
}

// session opens a session that is closed with the test, when etcd is well again.
func (e *etcd) session(t *testing.T, opts ...Option) *Session {
	t.Helper()
	s, err := NewSession(t.Context(), e.client(t), opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		e.bends(nil)
		require.NoError(t, s.Close())
		for _, l := range e.leases {
			l.expiry.Stop()
		}
	})
	return s
}

// bends sets what happens to requests from now on.
func (e *etcd) bends(how func(call string) fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bend = how
}

// away makes etcd unreachable: nothing is answered any more.
func (e *etcd) away() { e.bends(func(string) fault { return fault{lost: true} }) }

// only bends one kind of call.
func (e *etcd) only(call string, f fault) {
	e.bends(func(c string) fault {
		if c == call {
			return f
		}
		return fault{}
	})
}

// remove deletes a key as an operator would, behind everybody's back.
func (e *etcd) remove(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.keys[key] == nil {
		panic("no such key: " + key)
	}
	e.rev++
	e.deleteLocked(key)
}

// removeUntold deletes a key, and no watch tells of it: their member is frozen.
func (e *etcd) removeUntold(key string) {
	e.mu.Lock()
	clear(e.watches)
	e.mu.Unlock()
	e.remove(key)
}

// forbids makes reads of a key be refused.
func (e *etcd) forbids(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.denied = key
}

// count returns how many requests have arrived, of one kind or ("") of all.
func (e *etcd) count(call string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c, k := range e.calls {
		if call == "" || c == call {
			n += k
		}
	}
	return n
}

// at returns when the latest request of a kind arrived.
func (e *etcd) at(call string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last[call]
}

// serve runs one request under the knob. effect runs with mu.
func (e *etcd) serve(ctx context.Context, call string, effect func(f fault) error) error {
	e.mu.Lock()
	e.calls[call]++
	e.last[call] = time.Now()
	var f fault
	if e.bend != nil {
		f = e.bend(call)
	}
	f.term = max(f.term, 1)
	if f.lost || f.err != nil {
		e.mu.Unlock()
		if f.err != nil {
			return f.err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	err := effect(f)
	if f.again > 0 {
		e.mu.Unlock()
		if !rpc.Sleep(ctx, f.again) {
			return ctx.Err()
		}
		e.mu.Lock()
		err = effect(f)
	}
	e.mu.Unlock()
	if f.after > 0 && !rpc.Sleep(ctx, f.after) {
		return ctx.Err()
	}
	return err
}

func (e *etcd) header(f fault) *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: e.rev, RaftTerm: f.term}
}

func (e *etcd) Grant(ctx context.Context, ttl int64) (resp *clientv3.LeaseGrantResponse, err error) {
	err = e.serve(ctx, "grant", func(f fault) error {
		if f.ttl != 0 {
			ttl = f.ttl
		}
		id := clientv3.LeaseID(0x1000 + e.calls["grant"])
		d := time.Duration(ttl) * time.Second
		e.leases[id] = &fakeLease{d, time.AfterFunc(d, func() { e.expire(id) })}
		resp = &clientv3.LeaseGrantResponse{ResponseHeader: e.header(f), ID: id, TTL: ttl}
		return nil
	})
	return resp, err
}

func (e *etcd) KeepAliveOnce(ctx context.Context, id clientv3.LeaseID) (resp *clientv3.LeaseKeepAliveResponse, err error) {
	err = e.serve(ctx, "keepalive", func(f fault) error {
		l := e.leases[id]
		if l == nil || f.never { // the client makes an error of it, and keeps the header
			resp = &clientv3.LeaseKeepAliveResponse{ResponseHeader: e.header(f), ID: id}
			return rpctypes.ErrLeaseNotFound
		}
		l.expiry.Reset(l.ttl)
		if f.ttl == 0 {
			f.ttl = int64(l.ttl / time.Second)
		}
		resp = &clientv3.LeaseKeepAliveResponse{ResponseHeader: e.header(f), ID: id, TTL: f.ttl}
		return nil
	})
	return resp, err
}

func (e *etcd) Revoke(ctx context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	err := e.serve(ctx, "revoke", func(fault) error {
		if e.leases[id] == nil {
			return rpctypes.ErrLeaseNotFound
		}
		e.endLocked(id)
		return nil
	})
	return &clientv3.LeaseRevokeResponse{}, err
}

func (e *etcd) TimeToLive(ctx context.Context, id clientv3.LeaseID, _ ...clientv3.LeaseOption) (resp *clientv3.LeaseTimeToLiveResponse, err error) {
	err = e.serve(ctx, "ttl", func(f fault) error {
		resp = &clientv3.LeaseTimeToLiveResponse{ResponseHeader: e.header(f), ID: id}
		for key, kv := range e.keys {
			if kv.Lease == int64(id) {
				resp.Keys = append(resp.Keys, []byte(key))
			}
		}
		return nil
	})
	return resp, err
}

func (e *etcd) Close() error { return nil }

func (e *etcd) RequestProgress(context.Context) error { return nil }

func (e *etcd) expire(id clientv3.LeaseID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endLocked(id)
}

func (e *etcd) endLocked(id clientv3.LeaseID) {
	if l := e.leases[id]; l != nil {
		l.expiry.Stop()
		delete(e.leases, id)
	}
	e.rev++
	for key, kv := range e.keys {
		if kv.Lease == int64(id) {
			e.deleteLocked(key)
		}
	}
}
