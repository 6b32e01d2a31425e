package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file waits for a ticket's turn, in the goroutine of the caller.
//
// A ticket waits for the one just ahead of it. When that one is deleted, the ticket holds if the other held; if it had
// only given up, there are more ahead. Which of the two it was cannot be told from the deletion, so the waiter finds out
// beforehand: until the near ticket is known to hold, the one ahead of it, the far one, is watched too, and when that
// goes, the waiter looks who is ahead now. By the time the near ticket is released the answer is there, and no read
// stands between the release and the next hold. So a release wakes two waiters, however many there are: the next one
// holds, and the one behind it looks.

// checkAfter is how long a hold must last before the check of checkSoonLocked is made.
const checkAfter = 3 * time.Millisecond

// wait returns nil when the ticket holds, errRequeue when it was removed, and else why the wait ended.
func (t *ticket) wait(ctx context.Context, v view) (err error) {
	var near, far watch
	defer func() { near.stop(); far.stop() }()
	naming := t.whenToAsk(ctx, v)
	for {
		if len(v.ahead) == 0 {
			return t.grant()
		}
		pred := v.ahead[0]
		own, goneAt := t.own(pred, v)
		if goneAt > 0 {
			if v, err = t.look(ctx, goneAt); err != nil {
				return err
			}
			continue
		}
		if own != nil {
			near.stop()
			far.stop()
			t.waits(peer{})
			granted := false
			if granted, v, err = t.waitOwn(ctx, own); granted || err != nil {
				return err
			}
			continue
		}
		t.waits(pred)
		known := len(v.ahead) == 1
		from, farGone, err := t.follow(ctx, &near, &far, v)
		if err != nil {
			return err
		}
		if from > v.rev {
			if v, err = t.still(ctx, v, from); err != nil {
				return err
			}
			continue
		}
		at := int64(0) // look as of then, if not 0
		select {
		case resp, ok := <-near.events:
			if at = near.read(resp, ok); at > 0 && known {
				return t.grantThenCheck(at)
			}
		case resp, ok := <-far.events:
			at = far.read(resp, ok)
		case <-farGone:
		case <-t.stir:
			if v, err = t.stirred(ctx, v, &near); err != nil {
				return err
			}
		case <-naming:
			t.line.askWhoHolds(v)
			naming = nil
		case <-t.lease.ctx.Done():
			return errRequeue
		case <-ctx.Done():
			return ctx.Err()
		}
		if at > v.rev {
			if v, err = t.look(ctx, at); err != nil {
				return err
			}
			naming = t.whenToAsk(ctx, v)
		}
	}
}

// follow follows the near ticket, and the one ahead of it unless the near one is known to hold. It returns the revision
// up to which has to be read what happened to them. A far ticket of this same Session is followed in memory: then
// ended is closed at its next change.
func (t *ticket) follow(ctx context.Context, near, far *watch, v view) (from int64, ended <-chan struct{}, err error) {
	ctx, release := t.lease.bound(ctx)
	defer release()
	t.line.s.streams.hold(t.line.s.client, t.line.prefix)
	from, err = near.follow(ctx, t.line.s, v.ahead[0])
	if err != nil || len(v.ahead) == 1 {
		far.stop()
		return from, nil, err
	}
	own, goneAt := t.own(v.ahead[1], v)
	if own == nil && goneAt == 0 {
		farFrom, err := far.follow(ctx, t.line.s, v.ahead[1])
		return max(from, farFrom), nil, err
	}
	far.stop()
	if own != nil {
		var now state
		if now, _, goneAt, ended = own.fate(); now != gone {
			return from, ended, nil
		}
	}
	return max(from, goneAt), nil, nil
}

// waitOwn waits for a ticket of the same Session. Where its hold can be handed over in memory, that happens at the
// release; else at the confirmed deletion, whose revision tells as of when to look.
func (t *ticket) waitOwn(ctx context.Context, own *ticket) (granted bool, v view, err error) {
	t.behind(own)
	for {
		now, ruled, goneAt, changed := own.fate()
		switch {
		case now == left && ruled:
			if granted, err = t.inherit(own); granted || err != nil {
				return granted, v, err
			}
		case now == gone && ruled && goneAt > 0:
			return true, v, t.grantThenCheck(goneAt)
		case now == gone:
			v, err = t.look(ctx, goneAt)
			return false, v, err
		}
		select {
		case <-changed:
		case <-t.stir: // for a watch, which this one does not have, unless it was removed itself
			if t.isGone() {
				return false, v, errRequeue
			}
		case <-t.lease.ctx.Done():
			return false, v, errRequeue
		case <-ctx.Done():
			return false, v, ctx.Err()
		}
	}
}

// stirred looks again because the renewal's read found the near ticket gone. A watch that has not told by now is taken
// for stuck. Nothing is asked of etcd when this ticket itself was found gone, or when the watches have moved to another
// stream: a watch that opens there has what it missed read anyway.
func (t *ticket) stirred(ctx context.Context, v view, near *watch) (view, error) {
	gen := near.gen
	switch {
	case t.isGone():
		return v, errRequeue
	case gen != t.line.s.streams.gen.Load():
		return v, nil
	}
	v, err := t.look(ctx, 0)
	if err != nil {
		return v, err
	}
	if len(v.ahead) > 0 && v.ahead[0] == near.peer {
		return v, nil
	}
	select {
	case resp, ok := <-near.events:
		if near.read(resp, ok) > 0 {
			return v, nil // it has told, only later than the read
		}
	default:
	}
	t.line.s.freshStream(gen)
	return v, nil
}

// grantThenCheck grants on the strength of the predecessor's deletion at revision at, and asks afterwards whether the
// own ticket was still there: a deletion of the whole prefix removes both in one revision. Reading first would cost a
// round trip on every hand-over.
func (t *ticket) grantThenCheck(at int64) error {
	if err := t.grant(); err != nil {
		return err
	}
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.checkSoonLocked(at)
	return nil
}

// checkSoonLocked is for a hold that began before anybody looked for its ticket: somebody may have removed that. It was
// the lowest if it was there as of revision at, or, if at is 0, is there now. A hold that is released before the check
// is due needs none, because its deletion tells: it finds the ticket, or Unlock says ErrLost.
func (t *ticket) checkSoonLocked(at int64) {
	t.checking = time.AfterFunc(checkAfter, func() { t.line.s.spawn(func() { t.checkAt(at) }) })
}

func (t *ticket) checkAt(at int64) {
	s := t.line.s
	ctx, cancel := context.WithCancel(s.back)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)() // nobody wants to know any more
	r, rev, err := s.readAt(ctx, at, func(at int64) clientv3.Op {
		return clientv3.OpGet(t.key, append(asOf(at), clientv3.WithKeysOnly())...)
	})
	switch {
	case err != nil:
	case hasKey(r.Kvs, t.key, t.rev):
		s.mu.Lock()
		t.checking = nil
		s.mu.Unlock()
	default:
		t.removed(rev)
	}
}
