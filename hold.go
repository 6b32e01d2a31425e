package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// Hold is one hold, from the call that returned it to its Release. It is what a primitive returns of which one value can
// hold several times at once: then only the Hold tells which. It is not copied, and its methods are safe for concurrent
// use; those of a nil or zero Hold are those of a hold that was released.
//
// A Hold can end without Release (see ErrLost); Context tells. It never holds again.
type Hold struct {
	*named
	ticket *queue.Ticket // one stands for all that were taken together; nil in a value that nobody has made

	mu       sync.Mutex // guards what follows; a leaf
	released bool
	stays    bool // that was by UnlockAfter
	unleft   bool // the release is not confirmed, and everybody who asks again until it is known is told how it went
}

// hold is the Hold of a ticket that was granted.
func (n *named) hold(t *queue.Ticket) *Hold { return &Hold{named: n, ticket: t} }

// Context returns a context for the work done under the hold. It is over the moment the hold can no longer be relied on;
// see Mutex.Context.
func (h *Hold) Context() context.Context {
	if h == nil || h.ticket == nil {
		return lease.Ended(ErrNotHeld)
	}
	return h.ticket.Hold()
}

// Token returns the hold's fencing token: greater than that of every earlier hold of the name that excludes it, and the
// same after its end.
func (h *Hold) Token() int64 {
	if h == nil || h.ticket == nil {
		return 0
	}
	return h.ticket.Token()
}

// Key returns the key of the hold's ticket in etcd; of a hold of several names, that of the first name in order.
func (h *Hold) Key() string {
	if h == nil || h.ticket == nil {
		return ""
	}
	return h.ticket.Key()
}

// Keys returns the keys of all its tickets, in the order of their names: one, unless LockAll returned it.
func (h *Hold) Keys() []string {
	if h == nil || h.ticket == nil {
		return nil
	}
	return h.ticket.Keys()
}

// IsOwner returns a guard for an etcd transaction: If(h.IsOwner()...) lets it commit only while the hold's ticket exists.
// After the end of the hold it is never true; see Mutex.IsOwner.
func (h *Hold) IsOwner() []clientv3.Cmp {
	if h != nil && h.ticket != nil {
		if all := h.ticket.Guards(); all != nil {
			return all
		}
	}
	return []clientv3.Cmp{never(cmp.Or(h.Key(), "/"))} // etcd takes no empty key
}

// Wanted returns a channel that is closed once somebody waits whom this hold keeps waiting: a writer behind a reader, and
// not another reader; a permit for which there is no room; with LockAll, somebody behind any of the names. See Mutex.Wanted.
func (h *Hold) Wanted() <-chan struct{} {
	if h == nil || h.ticket == nil {
		return nil
	}
	return h.ticket.Wanted()
}

// Verify asks etcd, by one linearizable request, whether the hold still is one; see Mutex.Verify.
func (h *Hold) Verify(ctx context.Context) error {
	if err := h.begin(ctx, "verify"); err != nil {
		return err
	}
	if err := h.ticket.Verify(ctx); err != nil {
		return h.failed("verify", err)
	}
	return nil
}

// Release gives the hold back. It returns nil when etcd has confirmed that the ticket is gone. From the moment it is
// called nothing is held, whatever it returns: ErrLost, ErrNotHeld after the first call, ErrClosed, ErrUnconfirmed and
// the end of ctx are as for Mutex.Unlock. Called again after ErrUnconfirmed, it reports how that went.
func (h *Hold) Release(ctx context.Context) error {
	if err := h.begin(ctx, "release"); err != nil {
		return err
	}
	return h.release(ctx, 0)
}

// release is Release; with after, the place of the ticket stays taken until that has passed.
func (h *Hold) release(ctx context.Context, after time.Duration) (err error) {
	h.mu.Lock()
	again, ok := h.released, !h.released || h.unleft && (after <= 0 || h.stays)
	if !again {
		h.released, h.stays = true, after > 0
	}
	h.mu.Unlock()
	switch {
	case !ok:
		return h.failed(h.kind.give, h.notHeld())
	case after > 0 && !again:
		err = h.ticket.ReleaseAfter(ctx, after)
	default:
		err = h.ticket.Release(ctx, again)
	}
	h.mu.Lock()
	h.unleft = errors.Is(err, ErrUnconfirmed)
	h.mu.Unlock()
	if err == nil {
		return nil
	}
	return h.failed(h.kind.give, err)
}

// releasedByOther is for whoever would release it after somebody else has begun to, and may not have ended it yet. Its context
// keeps why it ended. UnlockAfter has told how that went.
func (h *Hold) releasedByOther() error {
	<-h.ticket.Hold().Done()
	h.mu.Lock()
	stays := h.stays
	h.mu.Unlock()
	if cause := context.Cause(h.ticket.Hold()); !stays || cause != h.kind.ticket.Released { //nolint:errorlint // the very same
		return h.failed(h.kind.give, cause)
	}
	return nil
}

// begin is what every call that can fail asks first.
func (h *Hold) begin(ctx context.Context, verb string) error {
	if h == nil || h.ticket == nil {
		return fmt.Errorf("etcdlock: %s: nil or zero Hold: it comes from RLock, Acquire or LockAll: %w", verb, ErrNotHeld)
	}
	return h.named.begin(ctx, verb)
}

// do runs fn under the hold and releases it, as Mutex.Do does.
func (h *Hold) do(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() { err = errors.Join(err, soonAfter(ctx, h.Release)) }()
	return h.work(ctx, h.ticket, fn)
}
