package etcdlock

import (
	"context"
	"errors"
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
	mu      sync.Mutex
	hold    *queue.Ticket // what the value holds, alive or lost, until its release
	freed   chan struct{} // closed when hold is cleared, made when somebody waits for that
	latest  *queue.Ticket // the hold adopted last
	leaving bool          // the release of latest is not confirmed, and whoever asks again is told how it went
}

// held returns the value's ticket, alive or lost; nil if it holds none.
func (h *handle) held() *queue.Ticket {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold
}

// adopt makes t the value's hold. It does not while the value has another: then one of the two is lost, since no two
// tickets of a name hold at once, and it is the older one, since a ticket is granted when all before it are gone.
// Either way t leaves the queue: a goroutine that was granted long ago may be late with it.
func (h *handle) adopt(t *queue.Ticket) bool {
	h.mu.Lock()
	old := h.hold
	if old == nil {
		h.hold, h.latest, h.leaving = t, t, false
	}
	h.mu.Unlock()
	switch {
	case old == nil:
		return true
	case old.Token() < t.Token():
		old.Removed(0)
		_ = t.Hold().Release() // it lasted until now
	default:
		t.Hold().Lose() // not handed on to whoever waits for it in memory
	}
	t.Leave()
	return false
}

// release ends the value's hold and waits for the confirmed deletion of its ticket. Called again after it has failed,
// it reports how that went on. With only, nothing is released but that one hold.
func (h *handle) release(ctx context.Context, only *queue.Ticket) error {
	return h.releaseAfter(ctx, only, 0)
}

// releaseAfter is release, and the place stays taken until after has passed.
func (h *handle) releaseAfter(ctx context.Context, only *queue.Ticket, after time.Duration) error {
	if err := h.begin(ctx, h.of().give); err != nil {
		return err
	}
	h.mu.Lock()
	t, again := h.hold, false
	switch {
	case only != nil && t != only && only.Stays(): // by UnlockAfter, which has told how that went
		h.mu.Unlock()
		return nil
	case only != nil && t != only: // somebody else has released it; its context keeps why it ended
		h.mu.Unlock()
		return h.failed(h.kind.give, context.Cause(only.Hold()))
	case t != nil:
		h.hold = nil // the value is free for its next hold before the ticket is touched
		if h.freed != nil {
			close(h.freed)
			h.freed = nil
		}
	case h.leaving:
		t, again = h.latest, true // for everybody who asks until it is known
	}
	h.mu.Unlock()
	if t == nil {
		return h.failed(h.of().give, h.notHeld())
	}
	var err error
	if after > 0 && !again {
		err = t.ReleaseAfter(ctx, after)
	} else {
		err = t.Release(ctx, again)
	}
	if err != nil || again {
		h.mu.Lock()
		if h.latest == t {
			h.leaving = errors.Is(err, ErrUnconfirmed)
		}
		h.mu.Unlock()
	}
	if err == nil {
		return nil
	}
	return h.failed(h.of().give, err)
}

// acquire queues and waits, and words the error.
func (h *handle) acquire(ctx context.Context, value string) (*queue.Ticket, error) {
	return h.named.acquire(ctx, value, h.lockedBy)
}

// lockedBy tells who is in the way. Where that is this very value, it says so.
func (h *handle) lockedBy(by *queue.Contender) *LockedError {
	err := h.named.lockedBy(by)
	if t := h.held(); t != nil && by.Key == t.Key() && by.Rev == t.Token() {
		err.why = "held by this Mutex value itself"
	}
	return err
}

// notHeld is why a value holds nothing.
func (h *handle) notHeld() error {
	if h.s != nil && h.s.over() != nil {
		return h.s.over()
	}
	return h.of().notHeld
}

func (h *handle) context() context.Context {
	if t := h.held(); t != nil {
		return t.Hold()
	}
	return lease.Ended(h.notHeld())
}

func (h *handle) token() int64 {
	if t := h.held(); t != nil {
		return t.Token()
	}
	return 0
}

func (h *handle) key() string {
	if t := h.held(); t != nil {
		return t.Key()
	}
	return ""
}

func (h *handle) isOwner() clientv3.Cmp {
	if t := h.held(); t != nil {
		if cmp, ok := t.Guard(); ok {
			return cmp
		}
	}
	return never(h.name)
}

func (h *handle) wanted() <-chan struct{} {
	if t := h.held(); t != nil {
		return t.Wanted()
	}
	return nil
}

// never is a comparison that is never true.
func never(name string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(name+"/"), "=", -1)
}

func (h *handle) verify(ctx context.Context) error {
	if err := h.begin(ctx, "verify"); err != nil {
		return err
	}
	err := h.notHeld()
	if t := h.held(); t != nil {
		err = t.Verify(ctx)
	}
	if err != nil {
		return h.failed("verify", err)
	}
	return nil
}
