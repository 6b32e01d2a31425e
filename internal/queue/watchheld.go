package queue

import (
	"context"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// WatchHeld keeps one watch on one held ticket while anything is held: when the lease is revoked, every ticket goes in one
// revision, so this one tells at once, whatever the number of locks. A hold that is over within a twentieth of the TTL
// costs nothing: the watch is opened only then, and at most that often.
//
// It runs as long as the Session, and so also while that waits for its holds to be released.
func (q *Tickets) WatchHeld() {
	ctx := q.tasks.Back()
	for {
		select {
		case <-q.held:
		case <-ctx.Done():
			return
		}
		for rpc.Sleep(ctx, q.renewal()*3/20) {
			t := q.someHeld()
			if t == nil {
				break
			}
			q.watchOne(ctx, t)
		}
	}
}

// watchOne watches t for as long as it is held.
func (q *Tickets) watchOne(ctx context.Context, t *Ticket) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)()
	var f follower
	defer f.Stop()
	if _, err := f.follow(ctx, q, generation{t.key, t.rev}); err != nil {
		return // it is not held any more, or the watch is refused: the renewals' checks remain
	}
	// A look after the watch has begun, for what was removed before.
	q.checkParts(ctx, []probe{{key: t.key, rev: t.rev, t: t}})
	for !f.Broken() && ctx.Err() == nil {
		select {
		case resp, ok := <-f.Events:
			if at := f.goneAt(resp, ok); at > 0 {
				t.Removed(at)
			}
		case <-ctx.Done():
		}
	}
	if t.hold.Lost() {
		q.leases.CheckNow() // only this one, or the lease with all the others?
	}
}

func (q *Tickets) someHeld() *Ticket {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range q.lease.tickets {
		if t.state == held && !t.hold.Lost() {
			return t
		}
	}
	return nil
}
