package etcdlock

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// handle is what a Mutex and an Election are made of: a name, and at most one hold of it at a time. A hold that was
// lost occupies the value until it has been released once, so that a late release can never end a later hold.
type handle struct {
	named

	// mu guards what follows. It is a leaf: nothing is taken, asked or cancelled under it, and nothing sent.
	mu     sync.Mutex
	hold   *Hold         // what the value holds, alive or lost, until its release
	freed  chan struct{} // closed when hold is cleared, made when somebody waits for that
	latest *Hold         // the hold adopted last, which tells how its release went
}

// held returns the value's hold, alive or lost; nil if there is none.
func (h *handle) held() *Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold
}

// adopt makes a hold of the value of t. It does not, and returns nil, while the value has another: then one of the two is
// lost, since no two tickets of a name hold at once, and it is the older one, since a ticket is granted when all before it
// are gone. Either way t leaves the queue: a goroutine that was granted long ago may be late with it.
func (h *handle) adopt(t *queue.Ticket) *Hold {
	h.mu.Lock()
	old := h.hold
	if old == nil {
		h.hold = h.named.hold(t)
		h.latest = h.hold
	}
	adopted := h.latest
	h.mu.Unlock()
	switch {
	case old == nil:
		return adopted
	case old.Token() < t.Token():
		old.ticket.Removed(0)
		_ = t.Hold().Release() // it lasted until now
	default:
		t.Hold().Lose() // not handed off to whoever waits for it in memory
	}
	t.Leave()
	return nil
}

// release ends the value's hold and waits for the confirmed deletion of its ticket; with after, its place stays taken until
// that has passed. Called again after it has failed, it reports how that went on. With only, nothing is released but that
// one hold.
func (h *handle) release(ctx context.Context, only *Hold, after time.Duration) error {
	if err := h.begin(ctx, h.of().give); err != nil {
		return err
	}
	h.mu.Lock()
	o := h.hold
	switch {
	case only != nil && o != only:
		h.mu.Unlock()
		return only.releasedByOther()
	case o == nil:
		o = h.latest // for everybody who asks until it is known
	default:
		h.hold = nil // the value is free for its next hold before the ticket is touched
		if h.freed != nil {
			close(h.freed)
			h.freed = nil
		}
	}
	h.mu.Unlock()
	if o == nil {
		return h.failed(h.of().give, h.notHeld())
	}
	return o.release(ctx, after)
}

// acquire queues and waits, and words the error.
func (h *handle) acquire(ctx context.Context, value string) (*queue.Ticket, error) {
	return h.named.acquire(ctx, value, h.lockedBy)
}

// lockedBy tells who is in the way. Where that is this very value, it says so.
func (h *handle) lockedBy(by *queue.Contender) *LockedError {
	err := h.named.lockedBy(by)
	if o := h.held(); o != nil && by.Key == o.Key() && by.Rev == o.Token() {
		err.why = "held by this Mutex value itself"
	}
	return err
}

func (h *handle) context() context.Context {
	if o := h.held(); o != nil {
		return o.Context()
	}
	return lease.Ended(h.notHeld())
}

func (h *handle) isOwner() clientv3.Cmp {
	if o := h.held(); o != nil {
		if cmp, ok := o.ticket.Guard(); ok {
			return cmp
		}
	}
	return never(h.name + "/")
}

// never is a comparison that is never true, of a key that the user may read.
func never(key string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(key), "=", -1)
}

func (h *handle) verify(ctx context.Context) error {
	if err := h.begin(ctx, "verify"); err != nil {
		return err
	}
	if o := h.held(); o != nil {
		return o.Verify(ctx)
	}
	return h.failed("verify", h.notHeld())
}
