package etcdlock

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file takes a lock only if it is free.

// tryAcquire takes the lock if nobody has it or waits for it.
func (s *Session) tryAcquire(ctx context.Context, k kind, name, value string, seen peer) (*ticket, error) {
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
			by, err = t.enqueueIfEmpty(lctx, seen)
		}
		release()
		switch {
		case err == nil && by != nil:
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

// enqueueIfEmpty puts the ticket only if nobody is in the queue: one request, and no write when somebody is. It
// returns who holds when the ticket is not the holder. Where names nest it is one look more, and after two rounds of
// which a key of such a name spoilt the second, the ticket queues (see enqueueToSee).
//
// seen is the holder that an earlier call found. While it exists it holds still, since nobody can come before it; that
// is asked first, because the compare on a whole prefix reads all of it.
func (t *ticket) enqueueIfEmpty(ctx context.Context, seen peer) (*LockedError, error) {
	ln := t.line
	put := clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.id))
	first := clientv3.OpGet(ln.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	mine := clientv3.OpGet(t.key)
	below := int64(1) // the create revision that nobody in the queue may have reached
	for range 2 {
		cmps := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(ln.prefix).WithPrefix(), "<", below)}
		then, otherwise := []clientv3.Op{put}, []clientv3.Op{mine, first}
		if seen.key != "" {
			nested := clientv3.OpTxn(cmps, then, otherwise)
			cmps = []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(seen.key), "=", seen.rev)}
			then, otherwise = []clientv3.Op{clientv3.OpGet(seen.key)}, []clientv3.Op{nested}
		}
		start := now()
		actx, cancel := context.WithTimeout(ctx, ln.s.patience(4))
		resp, err := ln.s.client.Txn(actx).If(cmps...).Then(then...).Else(otherwise...).Commit()
		cancel()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && ln.s.client.Ctx().Err() != nil:
			return nil, ErrClientClosed
		case err != nil:
			return nil, t.leaseGone(unanswered(err))
		}
		if now().sub(start) > time.Second {
			t.unsure() // the etcd client may have sent it more than once
		}
		answer := (*pb.TxnResponse)(resp)
		if seen.key != "" {
			if answer.Succeeded {
				return ln.locked(answer.Responses[0].GetResponseRange().Kvs[0]), nil
			}
			answer = answer.Responses[0].GetResponseTxn()
		}
		if answer.Succeeded {
			t.placed(resp.Header.Revision)
			return nil, nil //nolint:nilnil // neither locked by another nor failed: the ticket holds
		}
		kvs := answer.Responses[1].GetResponseRange().Kvs
		if mine := answer.Responses[0].GetResponseRange().Kvs; len(mine) > 0 { // it was sent twice
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
		seen, below = peer{}, rev+1
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
