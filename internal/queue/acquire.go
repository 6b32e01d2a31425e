package queue

import (
	"context"
	"errors"
	"time"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file takes a ticket from nothing to a hold. Whatever goes wrong on the way, the ticket leaves the queue.

// Acquire queues for name and waits, as long as ctx allows. A ticket that is lost while it waits, with its lease or by
// itself, is replaced by a new one at the end of the queue.
//
// With an error, by is not nil if the caller's context ended while others held; its fields are empty where nobody knows
// who.
func (q *Tickets) Acquire(ctx context.Context, k *Kind, name, value string) (t *Ticket, by *Contender, err error) {
	w := q.waitBegun(ctx, k, name, false)
	t, by, err = q.acquire(ctx, k, name, value)
	q.waitEnded(ctx, w, t, by, err)
	return t, by, err
}

func (q *Tickets) acquire(ctx context.Context, k *Kind, name, value string) (t *Ticket, by *Contender, err error) {
	for n := 0; ; n++ {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, err
		}
		t, takenUp := q.newTicket(l, k, name, value)
		if takenUp {
			return t, nil, nil
		}
		if err := q.over(); err != nil { // Clear looks at what is registered before the end begins
			t.forget()
			return nil, nil, err
		}
		a, err := t.enqueue(ctx)
		if err == nil && k.Elects && (t.group.class(a.near.key) != Exclusive || t.group.class(a.far.key) != Exclusive) {
			err = ErrShared
		}
		t.warnOf(a.near.key)
		if err == nil {
			err = t.wait(ctx, a)
		}
		if err == nil {
			return t, nil, nil
		}
		t.giveUp(err)
		if ctx.Err() == nil && l.open.Err() == nil && !errors.Is(err, errRequeue) {
			return nil, nil, q.why(ctx, err)
		}
		if pause(ctx, l, n); ctx.Err() != nil {
			return nil, t.blocker(), q.why(ctx, err)
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
