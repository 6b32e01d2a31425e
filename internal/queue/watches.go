package queue

import (
	"context"
	"errors"
	"sync"
)

// This file opens the watches of a waiter.

// errRecheck says that a check found something while a watch was being opened.
var errRecheck = errors.New("etcdlock: look again")

// follow follows the near ticket, and the far one unless the near one is alone. What happened to them before the watches
// began has been read when it returns: later is a as of then, or what is ahead by then if that is less. A far ticket of this
// same Session is followed in memory: then ended is closed at its next change.
//
// It fails with errRecheck if a check finds something before the watches are open: where no watch is answered, the checks
// are what tells.
func (t *Ticket) follow(ctx context.Context, near, far *follower, a ahead) (later ahead, ended <-chan struct{}, err error) {
	q := t.group.q
	if far.follows(q, a.near) {
		*near, *far = *far, *near
	}
	if near.follows(q, a.near) && (a.alone() || far.follows(q, a.far)) {
		if a.alone() {
			q.keep(far)
		}
		return a, nil, nil
	}
	ctx, release := t.lease.bound(ctx)
	defer release()
	q.c.KeepStreamOpen(t.group.prefix)
	asked := t.opens(release)
	if !asked {
		later, ended, err = t.open(ctx, near, far, a)
	}
	if t.opens(nil) {
		<-t.turn.recheck
		return a, nil, errRecheck
	}
	return later, ended, err
}

func (t *Ticket) open(ctx context.Context, near, far *follower, a ahead) (later ahead, ended <-chan struct{}, err error) {
	q := t.group.q
	if a.alone() {
		q.keep(far)
		later, err = t.openLast(ctx, near, a.near, a, 0)
		return later, nil, err
	}
	own, goneAt := t.own(a.far, a.rev)
	if own == nil && goneAt == 0 {
		from, err := near.follow(ctx, q, a.near)
		if err != nil {
			return a, nil, err
		}
		later, err = t.openLast(ctx, far, a.far, a, from)
		return later, nil, err
	}
	q.keep(far)
	if own != nil {
		now := own.status()
		goneAt, ended = now.goneAt, now.changed
	}
	later, err = t.openLast(ctx, near, a.near, a, goneAt)
	return later, ended, err
}

// openLast has the last watch follow p; what happened up to from has to be read. For whoever is next, or next but one, it is read
// while the watch opens: mostly the answer is as of a revision that is late enough, and if it shows that one of those ahead has
// gone, no watch is needed for that. Further back, nobody waits for the answer, and in a crowd that moves it would be too old.
func (t *Ticket) openLast(ctx context.Context, f *follower, p generation, a ahead, from int64) (ahead, error) {
	q := t.group.q
	if there := f.take(q, p); there || !a.whole {
		began, err := f.follow(ctx, q, p)
		if err != nil {
			return a, err
		}
		return t.still(ctx, a, max(from, began))
	}
	var beside sync.WaitGroup
	defer beside.Wait()
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	now, read := a, make(chan error, 1)
	less := func() bool { return now.near != a.near || now.far != a.far }
	beside.Go(func() {
		later, err := t.askFor(reading, a, 0)
		if err == nil {
			now = later
		}
		if less() {
			cancel()
		}
		read <- err
	})
	began, err := f.start(reading, q)
	if from = max(from, began); err == nil && from <= a.rev {
		return a, nil // it tells everything, and does not wait for the read, which a member that is frozen may have
	}
	at, unread := f.goneBefore(read, a.alone())
	switch {
	case at > 0:
		return a.without(p, at), nil
	case now.none(), less() && err != nil:
		return now, nil
	case err != nil:
		return a, err
	case unread != nil:
		return t.look(ctx, from)
	}
	return t.still(ctx, now, from) // also where somebody has gone: the watch may have begun later than the read
}

// opens says that the watches of a waiter are being opened: who asks it to look again calls cancel. Afterwards, with nil, it
// reports whether somebody has asked.
func (t *Ticket) opens(cancel func()) (asked bool) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.turn.opening = cancel
	return len(t.turn.recheck) > 0
}
