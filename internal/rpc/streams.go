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
// one stream, and so on one member; when that member freezes, nothing is told and nothing fails. Then the watches
// move to a stream with other metadata.

// streams is what the Sessions of one client share, so that they share its watch streams too.
type streams struct {
	gen       atomic.Int64 // part of the metadata
	confirmed atomic.Int64 // watches confirmed so far
	users     int          // guarded by allStreams

	mu     sync.Mutex // guards what follows; a leaf
	anchor *anchor
	over   bool
}

// anchor is a watch on a key that nobody uses, the bare prefix of some name. The client closes a stream with its last
// watch, and a waiter that finds none has to have one made before its own watch (see `bench -run turns`).
type anchor struct {
	gen    int64
	cancel context.CancelFunc
	done   chan struct{}
}

// hold keeps the stream of now open, from the first time that somebody waits until the last Session has closed.
func (st *streams) hold(client *clientv3.Client, key string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	gen, old := st.gen.Load(), st.anchor
	if st.over || old != nil && old.gen == gen {
		return
	}
	ctx, cancel := context.WithCancel(streamContext(gen))
	a := &anchor{gen, cancel, make(chan struct{})}
	st.anchor = a
	go func() { // ends when the next anchor, or letGo, cancels it
		defer close(a.done)
		if old != nil {
			old.cancel()
			<-old.done
		}
		for {
			var err error
			for resp := range client.Watch(ctx, key) {
				err = resp.Err()
			}
			refused := err != nil && errors.Is(refusal(err), rpctypes.ErrPermissionDenied)
			if refused || client.Ctx().Err() != nil || !Sleep(ctx, time.Second) {
				return
			}
		}
	}()
}

func (st *streams) letGo() {
	st.mu.Lock()
	a := st.anchor
	st.over = true
	st.mu.Unlock()
	if a != nil {
		a.cancel()
		<-a.done
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

// firstStream is the context of the first stream, shared by all its watches.
var firstStream = clientv3.WithRequireLeader(context.Background())

// streamContext is what a watch on the stream gen derives its context from. It is nobody's: what a caller's context
// carries would put that caller's watches on a stream of their own. Who opens a watch ends it, too.
func streamContext(gen int64) context.Context {
	if gen == 0 {
		return firstStream
	}
	return metadata.AppendToOutgoingContext(firstStream, "etcdlock-stream", strconv.FormatInt(gen, 10))
}

// Stream is the number of the stream that watches go to now.
func (c *Client) Stream() int64 { return c.streams.gen.Load() }

// LeaveStream moves the watches of all Sessions of this etcd client from stream gen to a new one; false if somebody has
// moved them already. Those who watch follow when they next look.
func (c *Client) LeaveStream(gen int64) bool { return c.streams.gen.CompareAndSwap(gen, gen+1) }

// KeepStreamOpen keeps the stream of now open from here on, until the last Client of the etcd client is released. Nobody
// needs to use key.
func (c *Client) KeepStreamOpen(key string) { c.streams.hold(c.Client, key) }
