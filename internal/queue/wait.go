package queue

import (
	"context"
	"errors"
	"time"
)

// This file waits for a ticket's turn, in the goroutine of the caller.
//
// A ticket waits for the one just ahead of it in its gates, so a release wakes one waiter. When that one is deleted, the
// ticket holds if nobody was ahead of the other; if somebody was, the other had only given up. Which of the two it was
// cannot be told from the deletion, so the waiter finds out beforehand: until the near ticket is known to be alone, the
// one ahead of it, the far one, is watched too, and when that goes, the waiter looks who is ahead now. By the time the
// near ticket is released the answer is there, and no read stands between the release and the next hold. Behind no more
// than two it saw everybody, and needs no look.

// wait returns nil when the ticket holds, errRequeue when it was removed, and else why the wait ended.
func (t *Ticket) wait(ctx context.Context, a ahead) (err error) {
	var near, far follower
	q := t.group.q
	defer func() { q.keep(&near); q.keep(&far) }()
	if t.holdsBehind(a) {
		t.all.isFirst(a.rev)
		return t.grant()
	}
	t.beginTurn()
	defer t.countWhile()()
	drained := func() {}
	defer func() { drained() }()
	naming := t.whenToAsk(ctx, a)
	for {
		if a.none() {
			t.all.isFirst(a.rev)
			return t.enter(ctx, a.gone)
		}
		if t.drains(a) {
			q.keep(&near)
			q.keep(&far)
			list := false
			if drained, list = t.startDrain(); list {
				if err = t.listReaders(ctx); err != nil {
					return err
				}
			}
			if a, err = t.look(ctx, 0); err != nil {
				return err
			}
			continue
		}
		own, goneAt := t.own(a.near, a.rev)
		if goneAt > 0 {
			if a, err = t.look(ctx, goneAt); err != nil { // it may be a stray, or another Session's by now
				return err
			}
			continue
		}
		if own != nil {
			q.keep(&near)
			q.keep(&far)
			t.waitsFor(generation{})
			granted := false
			if granted, a, err = t.waitOwn(ctx, own, a); granted || err != nil {
				return err
			}
			continue
		}
		t.waitsFor(a.near)
		later, farGone, err := t.follow(ctx, &near, &far, a)
		if errors.Is(err, errRecheck) {
			if t.isGone() {
				return errRequeue
			}
			if a, err = t.look(ctx, 0); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if later != a {
			a = later
			continue
		}
		var told *follower // who has an answer
		var at int64
		select {
		case resp, ok := <-near.Events:
			told, at = &near, near.goneAt(resp, ok)
		case resp, ok := <-far.Events:
			told, at = &far, far.goneAt(resp, ok)
		case <-farGone:
		case <-t.turn.recheck:
			if a, err = t.rechecked(ctx, a, &near); err != nil {
				return err
			}
		case <-naming:
			t.askWhoHolds(a)
			naming = nil
		case <-t.lease.open.Done():
			return errRequeue
		case <-ctx.Done():
			return ctx.Err()
		}
		if at > 0 {
			if a, err = t.crossOff(ctx, a, told.generation, at); err != nil {
				return err
			}
			naming = t.whenToAsk(ctx, a)
		}
	}
}

// waitOwn waits for a ticket of the same Session, which is the near one as of a. Where a handoff in memory is possible, that
// happens at the release; else at the confirmed deletion, whose revision tells as of when to look.
func (t *Ticket) waitOwn(ctx context.Context, own *Ticket, a ahead) (granted bool, later ahead, err error) {
	t.standBehind(own)
	var far *Ticket // behind two that hold together, as for the watches: whether the near one is alone is found out beforehand
	if !a.alone() && !own.kind.Class.alone() {
		far, _ = t.own(a.far, a.rev)
	}
	var naming <-chan time.Time
	if _, ends := ctx.Deadline(); ends {
		naming = t.whenToAsk(ctx, a)
	}
	for {
		var farGone <-chan struct{}
		if far != nil {
			now := far.status()
			if farGone = now.changed; now.state == gone {
				a, err = t.crossOff(ctx, a, a.far, now.goneAfter(a.rev))
				return false, a, err
			}
		}
		now := own.status()
		switch {
		case now.rev != 0 && now.rev != a.near.rev:
			// Its put was not answered when this one queued behind it. Somebody removed it since, and the put, sent
			// again, has created it anew, further back.
			a, err = t.look(ctx, 0)
			return false, a, err
		case now.state == staying: // a watch tells of its end
			a, err = t.look(ctx, 0)
			return false, a, err
		case now.state == left && now.letsIn:
			if granted, err = t.handoff(own); granted || err != nil {
				return granted, a, err
			}
		case now.state == gone:
			if now.letsIn { // it held alone
				a.far, a.whole = generation{}, true
			}
			a, err = t.crossOff(ctx, a, a.near, now.goneAfter(a.rev))
			return false, a, err
		}
		select {
		case <-now.changed:
		case <-farGone:
		case <-naming:
			t.askWhoHolds(a)
			naming = nil
		case <-t.turn.recheck: // for a watch, which this one does not have, unless it was removed itself
			if t.isGone() {
				return false, a, errRequeue
			}
		case <-t.lease.open.Done():
			return false, a, errRequeue
		case <-ctx.Done():
			return false, a, ctx.Err()
		}
	}
}

// goneAfter is the revision as of which the ticket is gone, 0 if that was an earlier deletion: it was seen as of rev.
func (s status) goneAfter(rev int64) int64 {
	if s.goneAt <= rev {
		return 0
	}
	return s.goneAt
}

// standBehind registers t as the one that waits for pred. Two tickets wait for the same one only when the earlier of them
// has left the queue.
func (t *Ticket) standBehind(pred *Ticket) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	pred.next = t
}

// rechecked looks again because a check found the near ticket gone, unless it was this ticket itself. A watch that has not
// told by now is taken for stuck.
func (t *Ticket) rechecked(ctx context.Context, a ahead, near *follower) (ahead, error) {
	if t.isGone() {
		return a, errRequeue
	}
	a, err := t.look(ctx, 0)
	if err != nil {
		return a, err
	}
	if a.near == near.generation {
		return a, nil
	}
	for {
		select {
		case resp, ok := <-near.Events:
			if near.goneAt(resp, ok) > 0 {
				return a, nil // it has told, only later than the read
			}
		default:
			near.LeaveStream(t.group.q.c)
			return a, nil
		}
	}
}
