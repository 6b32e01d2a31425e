package queue

import (
	"context"
)

// This file waits for a Session's holds to be released, when it is to end without taking any from its holder.

// AwaitReleased waits until nothing is held under l any more, and every release of a hold is confirmed. It fails with
// ctx's error, and with the cause of l's end: what was held then has ended with it.
//
// The Session has begun to end: nothing more is granted, so what is held only becomes less. What was lost is not waited
// for, nor are tickets that were given up: nobody hangs on their deletion, and the end of the lease removes them.
func (q *Tickets) AwaitReleased(ctx context.Context, l *Lease) error {
	for {
		changed := q.unreleased(l)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-l.Context().Done():
			return context.Cause(l.Context())
		case <-ctx.Done():
			return q.c.Over(ctx, q.leases.LastErr())
		}
	}
}

// unreleased picks one ticket that is waited for, and returns a channel that is closed when it changes; nil if there is
// none. So a crowd of them wakes the one who waits seldom.
func (q *Tickets) unreleased(l *Lease) (changed <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range l.tickets {
		released := t.state == left && t.byHolder && t.deletions.refused == nil // and somebody may wait for the confirmation
		stays := t.state == staying && !t.stay.over()
		if t.state == held || released || stays {
			return t.changedLocked()
		}
	}
	return nil
}
