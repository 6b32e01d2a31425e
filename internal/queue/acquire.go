package queue

import (
	"context"
	"errors"
	"time"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes a ticket from nothing to a hold. Whatever goes wrong on the way, the ticket leaves the queue.

// Acquire queues for the names, all at once, and waits until its tickets are first in all of them, as long as ctx allows. It
// returns the first of them. Where one is lost while it waits, with its lease or by itself, all are replaced by new ones at
// the ends of the queues. as is what the names are called together.
//
// With an error, by is not nil if the caller's context ended while others held: in tells the name, and by's fields are empty
// where nobody knows who.
func (q *Tickets) Acquire(
	ctx context.Context, k *Kind, as string, names []string, value string,
) (t *Ticket, by *Contender, in string, err error) {
	w := q.waitBegun(ctx, k, as, false)
	t, by, in, err = q.untilHeld(ctx, k, names, value, set.queue)
	q.waitEnded(ctx, w, t, by, in, err)
	return t, by, in, err
}

// untilHeld registers tickets and has them join, again and again, until they hold; or until join finds somebody in the way.
func (q *Tickets) untilHeld(
	ctx context.Context, k *Kind, names []string, value string, join func(set, context.Context) (*Contender, error),
) (t *Ticket, by *Contender, in string, err error) {
	for n := 0; ; n++ {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, "", err
		}
		s, takenUp := q.newSet(l, k, names, value)
		if takenUp != nil {
			return takenUp, nil, "", nil
		}
		if err := q.over(); err != nil { // Clear looks at what is registered before the end begins
			s.giveUp(nil)
			return nil, nil, "", err
		}
		by, err := join(s, ctx)
		if err == nil && by == nil {
			return s[0], nil, "", nil
		}
		s.giveUp(err)
		if err == nil {
			in, _ := lockOf(by.Key)
			return nil, by, in, nil
		}
		if ctx.Err() == nil && l.open.Err() == nil && !errors.Is(err, errRequeue) {
			return nil, nil, "", q.why(ctx, err)
		}
		if pause(ctx, l, n); ctx.Err() != nil {
			by, in := s.blocker()
			return nil, by, in, q.why(ctx, err)
		}
	}
}

// pause is what follows the nth attempt. Either the lease or the ticket went, or the Session ends, or the caller has had
// enough. Where it is the lease, the next one tells how to go on. A name whose tickets somebody keeps deleting is not queued
// for in a tight loop.
func pause(ctx context.Context, l *Lease, n int) {
	ctx, release := l.bound(ctx)
	defer release()
	rpc.Sleep(ctx, min(time.Millisecond<<min(n, 9), l.TTL/30))
}

// usable returns a lease to queue with, or what can be told without asking etcd.
func (q *Tickets) usable(ctx context.Context) (*Lease, error) {
	if q.tasks.Closing().Err() != nil {
		return nil, q.over()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l, err := q.leases.Live(ctx)
	if err != nil {
		return nil, q.why(ctx, err)
	}
	return l, nil
}

// over is why the Session is over, nil while it is not.
func (q *Tickets) over() error { return context.Cause(q.tasks.Closing()) }

// why is the error of a call that got nothing: the end of the Session before that of its context, and what etcd said last
// along with the latter.
func (q *Tickets) why(ctx context.Context, err error) error {
	switch {
	case q.tasks.Closing().Err() != nil:
		return q.over()
	case ctx.Err() != nil && (err == ctx.Err() || !errors.Is(err, ctx.Err())): //nolint:errorlint // bare, without etcd's word
		return q.c.Over(ctx, q.leases.LastErr())
	}
	return err
}
