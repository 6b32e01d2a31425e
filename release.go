package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has what a holder can do with its ticket, for Mutex and Election alike.

// release ends the hold and waits for the confirmed deletion; again only waits. The hold is over for its holder before
// the ticket is touched.
func (t *ticket) release(ctx context.Context, again bool) error {
	patience := time.NewTimer(t.lease.left()) // as of the call: renewals may go on while writes do not
	defer patience.Stop()
	if !again {
		lost := t.hold.Err() != nil
		cause := context.Cause(t.hold.Context) // the inner one: the clock has been asked
		t.hold.cancel(t.kind.notHeld)
		if !lost && t.linger() {
			return nil
		}
		if ctx.Err() == nil {
			t.leaveNow(ctx)
		}
		t.leave() // unless it has left
		if lost {
			return cause // ErrLost, ErrClosed or ErrClientClosed
		}
	}
	return t.awaitGone(ctx, patience.C)
}

// awaitGone waits until the ticket's deletion is confirmed. It ends early when ctx does, when patience runs out, when the
// lease is over (then etcd removes the ticket by itself), or when etcd refuses for good; the clean-up goes on in any case.
//
// ErrLost says that etcd answered every deletion sent, and none of them found the ticket: somebody else had removed it.
// One that was not answered, or so late that the etcd client may have sent it twice, may have been the one that did.
func (t *ticket) awaitGone(ctx context.Context, patience <-chan time.Time) error {
	s := t.line.s
	for {
		s.mu.Lock()
		d, last := t.deletions, t.line.last
		over, confirmed := t.state == gone, t.state == gone && t.goneAt > 0
		changed := t.changedLocked()
		s.mu.Unlock()
		switch {
		case confirmed && (d.found || d.unknown):
			return nil
		case confirmed && d.out == 0:
			return ErrLost
		case !confirmed && (over || t.lease.ctx.Err() != nil):
			if cause := context.Cause(t.lease.ctx); cause != nil && !errors.Is(cause, ErrLost) {
				return cause // ErrClosed or ErrClientClosed
			}
			return unconfirmed(errors.New("the lease ended first"), last)
		case d.refused != nil:
			return unconfirmed(d.refused, nil)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return unconfirmed(ctx.Err(), last)
		case <-patience:
			return unconfirmed(errors.New("the hold would have ended by now"), last)
		case <-t.lease.ctx.Done():
		}
	}
}

// unconfirmed is the error of a release that goes on in the background.
func unconfirmed(why, last error) error {
	if last == nil {
		return fmt.Errorf("%w: %w", ErrUnconfirmed, why)
	}
	return fmt.Errorf("%w: %w; last from etcd: %w", ErrUnconfirmed, why, last)
}

// guard returns a comparison that is true while the ticket exists, or never for one that is not held. Giving it out
// rules out a hand-over in memory: the ticket's key outlives such a release for a moment.
func (t *ticket) guard(name string) clientv3.Cmp {
	if t != nil && t.hold.Err() == nil {
		s := t.line.s
		s.mu.Lock()
		defer s.mu.Unlock()
		if t.state == held {
			t.guarded = true
			return clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)
		}
	}
	return clientv3.Compare(clientv3.CreateRevision(name+"/"), "=", -1)
}

// verify asks etcd for the ticket. That it exists is enough: it was the lowest once, and nobody can come before it.
func (t *ticket) verify(ctx context.Context) error {
	if t.hold.Err() != nil {
		return t.ended()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)() // with etcd away, the hold's end is the answer
	var resp *clientv3.GetResponse
	err := t.line.s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = t.line.s.client.Get(ctx, t.key, clientv3.WithKeysOnly())
		return err
	})
	if err != nil && t.hold.Err() == nil {
		return err
	}
	if err == nil && !hasKey(resp.Kvs, t.key, t.rev) {
		t.removed(resp.Header.Revision)
	}
	if t.hold.Err() != nil {
		return t.ended()
	}
	return nil
}

// ended is why a hold is over.
func (t *ticket) ended() error { return context.Cause(t.hold) }
