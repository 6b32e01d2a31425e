package etcdlock

import (
	"context"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file takes up what an earlier Session left in etcd: one that was orphaned, or whose process has ended.

// Resume takes up the hold of an earlier Session that has ended, such as that of this program before its restart, with its
// token: nobody else holds in between. key is the key of its ticket, and rev the revision at which that was written last:
// Contender.Modified, which is the token of a ticket that was never resumed. If the ticket waited, Resume waits for its turn
// in its place, as Lock does.
//
// The ticket moves to this Session's lease, and is written anew. So it can be taken up once by one revision: whoever comes
// second gets ErrTaken, as does who comes after the ticket has gone. Two conditions are the caller's:
//
//   - The earlier holder has ended, or knows that it does not hold. A Session that still lives notices within TTL/3 and a
//     round trip that its ticket was taken up, and its hold ends with ErrLost; in between both believe to hold. Its Unlock
//     deletes the ticket for as long as it has not noticed. A Session that lives and has made the lease itself on which this
//     one is keeps the ticket: then this hold ends instead. Of a Session with WithLinger the Session has to have ended: what
//     lingers it locks again without asking etcd.
//   - Both holds have the same token. A store that fences by it cannot tell what the earlier holder sent late from what this
//     one sends. The guard of the earlier lead of an Election stays true; that of a Mutex is not true any more.
//
// A release that the earlier holder has begun and that was not confirmed (ErrUnconfirmed) may still be under way. If it arrives
// after the ticket was taken up it deletes it, as an operator would: the hold ends with ErrLost at the next check. Nor is its
// token the greatest then: the hold may have gone on in memory to others of the earlier Session, and a store that has seen
// theirs refuses this one's. So take up what was held to the end, not what was being released.
//
// ErrTaken changes nothing. Any other error means that nothing is held, and that the ticket is deleted, or will be when a
// request that is late arrives, unless it never got to this Session's lease; so this Session does not take up the same ticket
// again, and says so, but one with another lease can. The value must not hold: ErrLocked says that it does.
//
// A Session that was given its lease (WithLease) cannot tell whether it was itself that moved the ticket there, if no answer
// came. So it deletes nothing then: the ticket stays, on the lease where it was or on this one, also after ErrTaken, and is
// in the way of others for as long as that lease is renewed. Ask Holder or Leader, and resume it as it is now.
func (m *Mutex) Resume(ctx context.Context, key string, rev int64) error {
	if old := m.held(); m.begin(ctx, "resume") == nil && old != nil {
		return m.occupied(old)
	}
	t, err := m.resume(ctx, key, rev)
	if err != nil {
		return err
	}
	if h := m.adopt(t); h == nil {
		return m.failed("resume", m.occupied(m.named.hold(t))) // somebody has locked the value meanwhile, by a ticket that is gone
	}
	return nil
}

// Resume takes up the lead of an earlier Session that has ended, with its token and its value; see Mutex.Resume, which has
// all that must be known. rev is Leader.Modified. ErrCampaigning is returned at once if the value is a candidate or leads.
func (e *Election) Resume(ctx context.Context, key string, rev int64) error {
	_, err := e.campaign(ctx, "resume", func() (*queue.Ticket, error) { return e.resume(ctx, key, rev) })
	return err
}

func (h *handle) resume(ctx context.Context, key string, rev int64) (*queue.Ticket, error) {
	if err := h.begin(ctx, "resume"); err != nil {
		return nil, err
	}
	if !queue.KeysOf(h.name).Has(key, h.of().ticket) {
		return nil, fmt.Errorf("etcdlock: resume %q: %q is not the key of a ticket of this name and kind: pass Key and Modified of "+
			"a Leader or a Contender", h.name, key)
	}
	if rev <= 0 {
		return nil, fmt.Errorf("etcdlock: resume %q: revision %d: pass the Modified of a Leader or a Contender", h.name, rev)
	}
	t, by, err := h.s.tickets.Resume(ctx, h.of().ticket, h.name, key, rev)
	switch {
	case err == nil:
		return t, nil
	case by != nil:
		err = fmt.Errorf("%w: %w", err, h.lockedBy(by))
	}
	return nil, h.failed("resume", err)
}
