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
	Events clientv3.WatchChan // nil while nothing is watched
	after  int64              // the revision that it starts after
	stream *stream
	cancel context.CancelFunc
}

// Open reports whether w watches, on the stream that c uses now.
func (w *Watch) Open(c *Client) bool { return w.cancel != nil && w.stream == c.streams.now.Load() }

// Broken reports whether w watches nothing: it was stopped, or never begun.
func (w *Watch) Broken() bool { return w.cancel == nil }

// Start begins to watch, in place of what w watched before, and returns the revision that the watch starts after: what
// happened up to then must be read. It tries until ctx ends or etcd refuses for good. Where a stream does not answer, the
// watches move to the next one; a single try there may meet the same member, so there are two, see twice.
//
// The watch asks for what comes from now on. One that names a start revision would be served by the server's catch-up
// loop, which runs every 100 ms, whenever the store has moved on.
func (w *Watch) Start(ctx context.Context, c *Client, key string, opts ...clientv3.OpOption) (after int64, err error) {
	w.Stop()
	opts = append(opts, clientv3.WithCreatedNotify())
	var pace Pace
	var last error
	for n := 0; ; n++ {
		now := c.streams.now.Load()
		open := func(ctx context.Context, nth int) (Watch, error) {
			if nth == 0 {
				return c.open(ctx, now, c.AttemptTimeout(n), key, opts)
			}
			w, err := c.open(ctx, now.next(), c.AttemptTimeout(n), key, opts)
			if err == nil {
				Sleep(ctx, c.AttemptTimeout(0)/10) // if both answer, nobody has to move
			}
			return w, err
		}
		again := errors.Is(last, ErrUnanswered)
		var opened Watch
		if again {
			opened, err = twice(ctx, open, (*Watch).Stop)
		} else {
			opened, err = open(ctx, 0)
		}
		switch {
		case ctx.Err() != nil:
			opened.Stop()
			return 0, c.Over(ctx, last)
		case err == nil:
			if opened.stream != now {
				c.streams.leave(now)
			}
			*w = opened
			return w.after, nil
		case c.Closed():
			return 0, ErrClientClosed
		case errors.Is(err, ErrUnanswered) && c.streams.now.Load() != now:
			continue // somebody else has left the stream, and tries two: a crowd need not
		case errors.Is(err, ErrUnanswered):
			c.streams.leave(now)
			if again {
				c.streams.leave(now.next())
			}
		case errors.Is(refusal(err), rpctypes.ErrPermissionDenied):
			return 0, rpctypes.ErrPermissionDenied
		default:
			if outdated(err) {
				c.streams.leave(now)
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
		last = err
		if !pace.Wait(ctx) {
			return 0, c.Over(ctx, last)
		}
	}
}

// open opens a watch on the stream s. The limit is explained at streams.limit.
func (c *Client) open(ctx context.Context, s *stream, limit time.Duration, key string, opts []clientv3.OpOption) (Watch, error) {
	wctx, cancel := context.WithCancel(s.ctx)
	timer := c.streams.limit(limit, cancel)
	unhook := context.AfterFunc(ctx, cancel)
	events := c.Watch(wctx, key, opts...) // which takes until the server has answered
	var first clientv3.WatchResponse
	select {
	case first = <-events:
	case <-wctx.Done():
	}
	timer.Stop()
	if unhook() && wctx.Err() == nil && first.Created && first.Err() == nil {
		c.streams.confirmed.Add(1)
		return Watch{Events: events, after: first.Header.Revision, stream: s, cancel: cancel}, nil
	}
	cancel()
	if err := first.Err(); err != nil {
		return Watch{}, err
	}
	return Watch{}, ErrUnanswered
}

// LeaveStream moves the watches of all Sessions of this etcd client from the stream that w is on to the next one.
func (w *Watch) LeaveStream(c *Client) {
	if w.stream != nil {
		c.streams.leave(w.stream)
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
