package queue

import (
	"context"
	"time"
)

// This file waits for room among the permits, in the goroutine of the caller.

// holdsBehind reports whether the ticket, which was there as of a, holds by what is known.
func (t *Ticket) holdsBehind(a ahead) bool {
	if t.kind.Class.counted() {
		return a.none() && t.room().fits
	}
	return a.none()
}

// enter grants a ticket that nobody of another class is ahead of any more: at once, or, if it is counted, when there is room
// for it. at is the revision of the deletion that says so, 0 if the ticket has been looked for since.
func (t *Ticket) enter(ctx context.Context, at int64) error {
	if t.kind.Class.counted() || t.draining() != nil {
		return t.awaitRoom(ctx, at)
	}
	if at == 0 {
		return t.grant()
	}
	return t.grantThenCheck(at)
}

func (t *Ticket) awaitRoom(ctx context.Context, at int64) error {
	t.waitsForRoom()
	var naming <-chan time.Time
	for {
		r := t.room()
		switch {
		case r.gone:
			t.Removed(r.seen)
			return errRequeue
		case r.fits && max(at, r.crossed) > r.seen:
			return t.grantThenCheck(max(at, r.crossed))
		case r.fits:
			return t.grant()
		case r.err != nil:
			return r.err
		}
		first := ahead{near: r.first} // it holds
		if naming == nil {
			naming = t.whenToAsk(ctx, ahead{near: r.first, far: r.first}) // late, as whoever is far back
		}
		select {
		case <-t.turn.recheck:
			if t.isGone() {
				return errRequeue
			}
		case <-naming:
			t.askWhoHolds(first)
			naming = make(chan time.Time)
		case <-t.lease.open.Done():
			return errRequeue
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitsForRoom says that the ticket waits for what the census tells.
func (t *Ticket) waitsForRoom() {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.turn.near, t.turn.counting = generation{}, true
}

// room is what the census says to a ticket that waits.
type room struct {
	fits    bool       // it holds
	gone    bool       // it is not there
	seen    int64      // the revision as of which it was there, or was not
	crossed int64      // one that something is known of which it was not looked for at
	first   generation // who holds
	err     error      // why nothing more will be told
}

func (t *Ticket) room() room {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.draining() != nil {
		return t.drainedLocked()
	}
	c := t.censusLocked()
	r := room{crossed: c.crossed, err: c.err}
	r.fits, r.gone, r.seen = c.fitsLocked(t)
	r.first = c.firstLocked()
	return r
}

// countWhile has the census kept up to date until leave is called.
func (t *Ticket) countWhile() (leave func()) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c := t.censusLocked()
	if c == nil {
		return func() {}
	}
	c.joinLocked()
	return c.leave
}

// warnOf says, once for each name, that somebody queues for the same semaphore under another limit.
func (t *Ticket) warnOf(key string) {
	other := t.group.class(key)
	if !t.Permit() || !other.permits() || other == t.kind.Class {
		return
	}
	q := t.group.q
	q.mu.Lock()
	before := q.warned[t.group.Name]
	q.warned[t.group.Name] = true
	q.mu.Unlock()
	if !before {
		q.log.Warn("etcdlock: members disagree about the limit of a semaphore: they take turns",
			"name", t.group.Name, "limit", t.kind.Class.limit, "other", other.limit, "ticket", key)
	}
}
