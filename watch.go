package etcdlock

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file follows single tickets of other Sessions until they are deleted, and one ticket of our own.

// watch follows one generation of a key. The zero value follows nothing. It belongs to one goroutine.
type watch struct {
	peer
	gen    int64 // of the stream it is on
	events clientv3.WatchChan
	cancel context.CancelFunc
}

// follow makes sure that w follows p. When it had to open a watch it returns the revision that the watch starts
// after: what happened to the key up to then must be read.
//
// The watch asks for what comes from now on. One that names a start revision would be served by the server's catch-up
// loop, which runs every 100 ms, whenever the store has moved on. Puts are left out: a leader's Proclaim wakes nobody.
func (w *watch) follow(ctx context.Context, s *Session, p peer) (from int64, err error) {
	return w.open(ctx, s, p, clientv3.WithFilterPut())
}

// open is follow with other options than a single key's deletion asks for.
func (w *watch) open(ctx context.Context, s *Session, p peer, opts ...clientv3.OpOption) (from int64, err error) {
	opts = append(opts, clientv3.WithCreatedNotify())
	if w.cancel != nil && w.peer == p && w.gen == s.streams.gen.Load() {
		return 0, nil
	}
	w.stop()
	var last error
	for n := 0; ; n++ {
		gen := s.streams.gen.Load()
		wctx, cancel := context.WithCancel(streamContext(gen))
		limit := s.streams.limit(s.patience(n), cancel)
		unhook := context.AfterFunc(ctx, cancel)
		events := s.client.Watch(wctx, p.key, opts...) // which takes until the server has answered
		var first clientv3.WatchResponse
		select {
		case first = <-events:
		case <-wctx.Done():
		}
		limit.Stop()
		if unhook() && wctx.Err() == nil && first.Created && first.Err() == nil {
			s.streams.confirmed.Add(1)
			*w = watch{peer: p, gen: gen, events: events, cancel: cancel}
			return first.Header.Revision, nil
		}
		cancel()
		switch err := first.Err(); {
		case ctx.Err() != nil:
			return 0, overErr(ctx, last)
		case s.client.Ctx().Err() != nil:
			return 0, ErrClientClosed
		case err == nil:
			last = errUnanswered
			s.freshStream(gen)
		case errors.Is(refusal(err), rpctypes.ErrPermissionDenied):
			return 0, rpctypes.ErrPermissionDenied
		default:
			last = err
			if outdated(err) {
				s.freshStream(gen)
			}
		}
		if !sleep(ctx, min(20*time.Millisecond<<min(n, 6), time.Second)) {
			return 0, overErr(ctx, last)
		}
	}
}

// read takes one answer off the watch: the revision at which the key was deleted, 0 if it was not. A watch that has
// broken is stopped; follow opens the next one.
func (w *watch) read(resp clientv3.WatchResponse, ok bool) (goneAt int64) {
	if !ok || resp.Err() != nil {
		w.stop()
		return 0
	}
	for _, ev := range resp.Events {
		// A member that lags may still show the end of an earlier generation: concurrency uses its keys again.
		if ev.Type == clientv3.EventTypeDelete && ev.Kv.ModRevision > w.rev {
			return ev.Kv.ModRevision
		}
	}
	return 0
}

func (w *watch) stop() {
	if w.cancel != nil {
		w.cancel()
	}
	*w = watch{}
}

// refusal makes the end of a watch an error that transient understands: etcd sends the reason as a text.
func refusal(err error) error {
	if strings.Contains(err.Error(), "permission denied") {
		return rpctypes.ErrPermissionDenied
	}
	return errUnanswered
}

// outdated reports whether the server refuses the login that the stream was opened with: its token has expired, or
// somebody has changed users or roles since. For the next stream the client logs in anew.
func outdated(err error) bool {
	for _, why := range []error{rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty} {
		if strings.Contains(err.Error(), why.Error()) {
			return true
		}
	}
	return false
}

// stand keeps one watch on one held ticket while anything is held: when the lease is revoked, every ticket goes in one
// revision, so this one tells at once, whatever the number of locks. A hold that is over within a twentieth of the TTL
// costs nothing: the watch is opened only then, and at most that often.
//
// It runs from NewSession to Close.
func (s *Session) stand() {
	ctx, cancel := context.WithCancel(s.back)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	for {
		select {
		case <-s.holds:
		case <-ctx.Done():
			return
		}
		for sleep(ctx, s.TTL()/20) {
			t := s.someHeld()
			if t == nil {
				break
			}
			s.standBy(ctx, t)
		}
	}
}

// standBy watches t for as long as it is held.
func (s *Session) standBy(ctx context.Context, t *ticket) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)()
	var w watch
	defer w.stop()
	if _, err := w.follow(ctx, s, peer{t.key, t.rev}); err != nil {
		return // it is not held any more, or the watch is refused: the renewals' checks remain
	}
	// A look after the watch has begun, for what was removed before.
	s.checkParts(ctx, []probe{{t.key, t.rev, t, false}})
	for w.cancel != nil && ctx.Err() == nil {
		select {
		case resp, ok := <-w.events:
			if at := w.read(resp, ok); at > 0 {
				t.removed(at)
			}
		case <-ctx.Done():
		}
	}
	if t.hold.lost() {
		s.pokeKeep() // only this one, or the lease with all the others?
	}
}

func (s *Session) pokeKeep() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

func (s *Session) someHeld() *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.lease.tickets {
		if t.state == held {
			return t
		}
	}
	return nil
}
