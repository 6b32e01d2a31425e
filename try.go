package etcdlock

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file takes a lock only if it is free.

// tryAcquire takes the lock if nobody has it or waits for it. seen is the holder that etcd named at the last try, and
// is set to the one that it names now.
func (s *Session) tryAcquire(ctx context.Context, k kind, name, value string, seen *peer) (*ticket, error) {
	if err := s.usable(ctx, k, name); err != nil {
		return nil, err
	}
	for {
		l, err := s.live(ctx)
		if err != nil {
			return nil, s.failed(ctx, k, name, nil, err)
		}
		t, resumed := s.newTicket(l, k, name, value)
		if resumed {
			return t, nil
		}
		s.mu.Lock()
		by := t.line.ownLocked()
		s.mu.Unlock()
		if by != nil {
			t.forget()
			return nil, by
		}
		lctx, release := l.bound(ctx)
		if err = t.line.settle(lctx); err == nil {
			by, err = t.line.stillHeld(lctx, seen)
		}
		if err == nil && by == nil {
			by, err = t.enqueueIfEmpty(lctx)
		}
		release()
		switch {
		case err == nil && by != nil:
			*seen = peer{by.Key, by.Token}
			if t.rev == 0 {
				t.forget() // it was never put
			} else {
				t.leave()
			}
			return nil, by
		case err == nil:
			err = t.grant()
		}
		if err == nil {
			return t, nil
		}
		t.giveUp(err)
		if !errors.Is(err, errRequeue) && l.ctx.Err() == nil || ctx.Err() != nil {
			return nil, s.failed(ctx, k, name, nil, err)
		}
	}
}

// settle waits until the tickets that this Session has released are gone from etcd: they would make the name look
// busy. Where others of its tickets are queued, the name is busy anyway.
func (ln *line) settle(ctx context.Context) error {
	s := ln.s
	for first := true; ; first = false {
		s.mu.Lock()
		ln.buryDoomedLocked()
		if n := len(ln.doomed); n == 0 || ln.refs > n+1 {
			s.mu.Unlock()
			return nil
		}
		t, last := ln.doomed[len(ln.doomed)-1], ln.last
		changed, refused := t.changedLocked(), t.refusedLocked()
		if first && ln.dueLocked(true) {
			ln.flyLocked() // the flight under way is somebody else's, and may hang
		}
		s.mu.Unlock()
		if refused {
			return nil // no use waiting; etcd will say what it thinks of this client
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return overErr(ctx, last)
		}
	}
}

// stillHeld asks for the holder that an earlier try found: while it exists it holds, since nobody can come before it.
// It is a read alone. The Txn of enqueueIfEmpty goes through the log of every member, whether it puts or not, and its
// compare on the whole prefix reads all of that.
func (ln *line) stillHeld(ctx context.Context, seen *peer) (*LockedError, error) {
	if seen.key == "" {
		return nil, nil //nolint:nilnil // not known to be locked
	}
	var resp *clientv3.GetResponse
	err := ln.s.askOnce(ctx, func(ctx context.Context) (err error) {
		resp, err = ln.s.client.Get(ctx, seen.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !hasKey(resp.Kvs, seen.key, seen.rev) {
		*seen = peer{}
		return nil, nil //nolint:nilnil // as above
	}
	return ln.locked(resp.Kvs[0]), nil
}

// enqueueIfEmpty puts the ticket only if nobody is in the queue: one request, which writes no key when somebody is. It
// returns who holds when the ticket is not the holder. Where names nest it is one look more, and after two rounds of
// which a key of such a name spoilt the second, the ticket queues (see enqueueToSee).
func (t *ticket) enqueueIfEmpty(ctx context.Context) (*LockedError, error) {
	ln := t.line
	put := clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.id))
	first := clientv3.OpGet(ln.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	mine := clientv3.OpGet(t.key)
	below := int64(1) // the create revision that nobody in the queue may have reached
	for range 2 {
		start := now()
		var resp *clientv3.TxnResponse
		err := ln.s.askOnce(ctx, func(ctx context.Context) (err error) {
			resp, err = ln.s.client.Txn(ctx).
				If(clientv3.Compare(clientv3.CreateRevision(ln.prefix).WithPrefix(), "<", below)).
				Then(put).
				Else(mine, first).
				Commit()
			return err
		})
		if err != nil {
			return nil, t.leaseGone(err)
		}
		if now().sub(start) > time.Second {
			t.unsure() // the etcd client may have sent it more than once
		}
		if resp.Succeeded {
			t.placed(resp.Header.Revision)
			return nil, nil //nolint:nilnil // neither locked by another nor failed: the ticket holds
		}
		kvs := resp.Responses[1].GetResponseRange().Kvs
		if mine := resp.Responses[0].GetResponseRange().Kvs; len(mine) > 0 { // it was sent twice
			if !t.found(mine[0]) || string(kvs[0].Key) != t.key {
				return nil, errRequeue
			}
			return nil, nil //nolint:nilnil // as above
		}
		if len(kvs) > 0 && ln.direct(string(kvs[0].Key)) {
			return ln.locked(kvs[0]), nil
		}
		// Names nest here. Look for a contender among all keys; if there is none, nobody may come after this look.
		head, rev, err := ln.head(ctx)
		if err != nil || head != nil {
			return ln.locked(head), err
		}
		below = rev + 1
	}
	return t.enqueueToSee(ctx)
}

// enqueueToSee is for a name below which keys come and go faster than they can be looked at: the ticket queues as that
// of a Lock does. When somebody turns out to be ahead, it returns who holds, and the ticket has to leave.
func (t *ticket) enqueueToSee(ctx context.Context) (*LockedError, error) {
	v, err := t.enqueue(ctx)
	if err != nil || len(v.ahead) == 0 {
		return nil, err
	}
	head, _, err := t.line.head(ctx)
	switch {
	case err != nil:
		return nil, err
	case head == nil: // somebody removed the ticket
		return nil, errRequeue
	case string(head.Key) == t.key && head.CreateRevision == t.rev:
		return nil, nil //nolint:nilnil // as in enqueueIfEmpty
	}
	return t.line.locked(head), nil
}
