package rpc

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file opens watches.

// Watch is one watch on a key or a range of keys. The zero value watches nothing. It belongs to one goroutine.
type Watch struct {
	Stream int64              // the number of the stream it is on
	Events clientv3.WatchChan // nil while nothing is watched
	cancel context.CancelFunc
}

// Open reports whether w watches, on the stream that c uses now.
func (w *Watch) Open(c *Client) bool { return w.cancel != nil && w.Stream == c.Stream() }

// Broken reports whether w watches nothing: it was stopped, or never begun.
func (w *Watch) Broken() bool { return w.cancel == nil }

// Start begins to watch, in place of what w watched before, and returns the revision that the watch starts after: what
// happened up to then must be read. It tries until ctx ends or etcd refuses for good. moved is called when the watches
// had to move to another stream.
//
// The watch asks for what comes from now on. One that names a start revision would be served by the server's catch-up
// loop, which runs every 100 ms, whenever the store has moved on.
func (w *Watch) Start(ctx context.Context, c *Client, moved func(from int64), key string, opts ...clientv3.OpOption) (after int64, err error) {
	w.Stop()
	opts = append(opts, clientv3.WithCreatedNotify())
	pace := Pace{Least: 20 * time.Millisecond, Most: time.Second}
	var last error
	for n := 0; ; n++ {
		gen := c.Stream()
		wctx, cancel := context.WithCancel(streamContext(gen))
		limit := c.streams.limit(c.AttemptTimeout(n), cancel)
		unhook := context.AfterFunc(ctx, cancel)
		events := c.Watch(wctx, key, opts...) // which takes until the server has answered
		var first clientv3.WatchResponse
		select {
		case first = <-events:
		case <-wctx.Done():
		}
		limit.Stop()
		if unhook() && wctx.Err() == nil && first.Created && first.Err() == nil {
			c.streams.confirmed.Add(1)
			*w = Watch{Stream: gen, Events: events, cancel: cancel}
			return first.Header.Revision, nil
		}
		cancel()
		switch err := first.Err(); {
		case ctx.Err() != nil:
			return 0, c.Over(ctx, last)
		case c.Closed():
			return 0, ErrClientClosed
		case err == nil:
			last = ErrUnanswered
			moved(gen)
		case errors.Is(refusal(err), rpctypes.ErrPermissionDenied):
			return 0, rpctypes.ErrPermissionDenied
		default:
			last = err
			if outdated(err) {
				moved(gen)
			}
			// A watch says why in words. A read says in a code whether that is final.
			err := c.Once(ctx, func(ctx context.Context) error {
				_, err := c.Get(ctx, key, append(opts, clientv3.WithCountOnly())...)
				return err
			})
			if err != nil && ctx.Err() == nil && !Transient(err) {
				return 0, err
			}
		}
		if !pace.Wait(ctx) {
			return 0, c.Over(ctx, last)
		}
	}
}

// Read takes one answer off the watch. One that has broken is stopped; its events are none.
func (w *Watch) Read(resp clientv3.WatchResponse, ok bool) []*clientv3.Event {
	if !ok || resp.Err() != nil {
		w.Stop()
		return nil
	}
	return resp.Events
}

// Stop ends the watch.
func (w *Watch) Stop() {
	if w.cancel != nil {
		w.cancel()
	}
	*w = Watch{}
}
