package etcdlock

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has what a holder can do with its ticket, for Mutex and Election alike.

// release ends the hold and waits for the confirmed deletion; again only waits. The hold is over for its holder before
// the ticket is touched.
func (t *ticket) release(ctx context.Context, again bool) error {
	if !again {
		lost := t.hold.Err() != nil
		cause := context.Cause(t.hold.Context) // the inner one: the clock has been asked
		t.hold.cancel(ErrNotHeld)
		if !lost && t.linger() {
			return nil
		}
		if ctx.Err() == nil {
			t.leaveNow(ctx)
		}
		t.leave() // unless it has left
		switch {
		case lost:
			return cause // ErrLost, ErrClosed or ErrClientClosed
		}
	}
	if err := ctx.Err(); err != nil && !again {
		return err // the deletion is on its way
	}
	return t.awaitGone(ctx)
}

// stays reports whether the ticket's deletion is still to be confirmed.
func (t *ticket) stays() bool {
	now, _, _, _ := t.fate()
	return now == left
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
