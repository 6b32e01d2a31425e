package etcdlock

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// This file is what tests of time say to the etcd in memory: few words for the faults that they want, and counts of requests.

// fault is what happens to one request.
type fault struct {
	lost  bool          // it never arrives; the caller waits for its own context
	err   error         // it is refused, at once or after the time below
	after time.Duration // it takes effect at once and is answered that much later
	late  time.Duration // it takes effect that much later
	again time.Duration // it takes effect once more that much later, and that answer counts
	newer uint64        // how many terms the answer's is ahead
	ttl   int64         // the TTL in the answer, if not 0: what a grant gives, what a keepalive reports
	never bool          // a keepalive is answered by a leader that never heard of the lease
}

var errDenied = rpctypes.ErrPermissionDenied

var errAway = status.Error(codes.Unavailable, "connection refused")

// firstTerm is the raft term that a cluster begins with.
const firstTerm = 2

// etcd is the server. The names of its calls are grant, keepalive, revoke, ttl, read, write and watch.
type etcd struct {
	*memetcd.Server

	mu     sync.Mutex // guards what follows
	bend   func(call string) fault
	calls  map[string]int
	last   map[string]time.Time // when the latest of each call was sent
	denied string               // a key that may not be read

	slept atomic.Int64 // how long the machine was suspended
}

// inBubble runs f with an etcd and fake time. The machine is never suspended unless f says so.
func inBubble(t *testing.T, f func(t *testing.T, e *etcd)) {
	t.Helper()
	e := &etcd{calls: map[string]int{}, last: map[string]time.Time{}}
	bubble(t, func() time.Duration { return time.Duration(e.slept.Load()) }, func(t *testing.T) {
		e.Server = memetcd.New(memetcd.Config{MinTTL: 1, Judge: e.judge})
		t.Cleanup(func() {
			e.Close()
			time.Sleep(time.Second) // for what the client has still to finish
		})
		f(t, e)
	})
}

// judge counts a request, and bends it.
func (e *etcd) judge(r memetcd.Request) memetcd.Verdict {
	call := map[memetcd.Kind]string{memetcd.Range: "read"}[r.Kind]
	switch r.Kind {
	case memetcd.Grant, memetcd.KeepAlive, memetcd.Revoke, memetcd.TTL, memetcd.Watch:
		call = string(r.Kind)
	case memetcd.Txn, memetcd.Put, memetcd.Delete:
		call = "read"
		if r.Write {
			call = "write"
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[call]++
	e.last[call] = time.Now()
	var f fault
	if e.bend != nil {
		f = e.bend(call)
	}
	v := memetcd.Verdict{
		Lost: f.lost, Refuse: f.err, AnswerDelay: f.after, Term: firstTerm + f.newer, TTL: f.ttl, Unheard: f.never,
	}
	if call == "keepalive" && f.err == errAway { //nolint:errorlint // this very value
		v.Lost = true // the client waits for a connection before it opens a stream
	}
	if v.Delay = f.late; f.err != nil {
		v.Delay = f.after
	}
	if f.again > 0 {
		v.Again, v.AnswerAgain = []time.Duration{f.again}, true
	}
	if e.denied != "" && call == "read" && slices.Contains(r.Keys, e.denied) {
		v.Refuse = errDenied
	}
	return v
}

func (e *etcd) client(t *testing.T) *clientv3.Client {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // Close comes after the end of the test's own
	t.Cleanup(cancel)
	return e.Client(ctx)
}

// session opens a session that is closed with the test, when etcd is well again.
func (e *etcd) session(t *testing.T, opts ...Option) *Session {
	t.Helper()
	s, err := NewSession(t.Context(), e.client(t), opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		e.bends(nil)
		require.NoError(t, s.Close())
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
	if e.Key(key) == nil {
		panic("no such key: " + key)
	}
	e.Delete(key)
}

// removeUntold deletes a key, and no watch tells of it: their member is frozen.
func (e *etcd) removeUntold(key string) {
	e.MuteStreams(0)
	e.remove(key)
}

// forbids makes reads of a key be refused.
func (e *etcd) forbids(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.denied = key
}

// has reports whether a key exists.
func (e *etcd) has(key string) bool { return e.Key(key) != nil }

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
