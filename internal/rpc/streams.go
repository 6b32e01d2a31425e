package rpc

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file chooses the stream of the etcd client that watches go to. The client puts watches with equal metadata on
// one stream, and so on one member; when that member freezes, nothing is told and nothing fails. Then the watches of all
// Sessions of the client move to a stream with other metadata.

// stream is one of them. Watches are on the same if their contexts derive from the same.
type stream struct {
	ctx    context.Context // nobody's: what a caller's context carries would put that caller's watches on another stream
	cancel context.CancelFunc
	next   func() *stream // the one after it
}

func newStream(n int64) *stream {
	// With the leader required, a member that is cut off from it ends its watches instead of saying nothing.
	ctx := clientv3.WithRequireLeader(context.Background())
	if n > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "etcdlock-stream", strconv.FormatInt(n, 10))
	}
	s := &stream{next: sync.OnceValue(func() *stream { return newStream(n + 1) })}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// streams is what the Sessions of one client share, so that they share its watch streams too.
type streams struct {
	now       atomic.Pointer[stream]
	confirmed atomic.Int64 // watches confirmed so far
	users     int          // guarded by allStreams

	mu     sync.Mutex // guards what follows; a leaf
	anchor *anchor
	over   bool
}

// anchor is a watch on a key that nobody uses, the bare prefix of some name. The client closes a stream with its last
// watch, and a waiter that finds none has to have one made before its own watch (see `bench -run turns`).
type anchor struct {
	stream *stream
	done   chan struct{}
}

// hold keeps the stream of now open, from the first time that somebody waits until the last Session has closed.
func (st *streams) hold(client *clientv3.Client, key string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	s, old := st.now.Load(), st.anchor
	if st.over || old != nil && old.stream == s {
		return
	}
	a := &anchor{s, make(chan struct{})}
	st.anchor = a
	go func() { // ends with its stream
		defer close(a.done)
		if old != nil {
			<-old.done
		}
		for {
			var err error
			for resp := range client.Watch(s.ctx, key) {
				err = resp.Err()
			}
			refused := err != nil && errors.Is(refusal(err), rpctypes.ErrPermissionDenied)
			if refused || client.Ctx().Err() != nil || !Sleep(s.ctx, time.Second) {
				return
			}
		}
	}()
}

// letGo ends the stream of now.
func (st *streams) letGo() {
	st.mu.Lock()
	a := st.anchor
	st.over = true
	st.mu.Unlock()
	st.now.Load().cancel()
	if a != nil {
		<-a.done
	}
}

// leave moves all watches from s to the stream after it, unless somebody has moved them already: those on s end.
func (st *streams) leave(s *stream) {
	if st.now.CompareAndSwap(s, s.next()) {
		s.cancel()
	}
}

var allStreams = struct {
	sync.Mutex // guards of, and each users; a leaf
	of         map[*clientv3.Client]*streams
}{of: make(map[*clientv3.Client]*streams)}

// streamsOf returns the client's, for one Session more.
func streamsOf(client *clientv3.Client) *streams {
	allStreams.Lock()
	defer allStreams.Unlock()
	st := allStreams.of[client]
	if st == nil {
		st = new(streams)
		st.now.Store(newStream(0))
		allStreams.of[client] = st
	}
	st.users++
	return st
}

// release is called once by each Session, when it has closed.
func (st *streams) release(client *clientv3.Client) {
	allStreams.Lock()
	st.users--
	last := st.users == 0
	if last {
		delete(allStreams.of, client)
	}
	allStreams.Unlock()
	if last {
		st.letGo()
	}
}

// limit calls cancel when no watch at all has been confirmed for d. The client opens the watches of a stream one after
// another, so a crowd takes its time on a stream that is well.
func (st *streams) limit(d time.Duration, cancel func()) *time.Timer {
	seen := st.confirmed.Load()
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() {
		if n := st.confirmed.Load(); n != seen {
			seen = n
			timer.Reset(d)
			return
		}
		cancel()
	})
	timer.Reset(d)
	return timer
}

// KeepStreamOpen keeps the stream of now open from here on, until the last Client of the etcd client is released. Nobody
// needs to use key.
func (c *Client) KeepStreamOpen(key string) { c.streams.hold(c.Client, key) }
