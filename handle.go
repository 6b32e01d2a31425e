package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// handle is what a Mutex and an Election are made of: a name, and at most one hold of it at a time. A hold that was
// lost occupies the value until it has been released once, so that a late release can never end a later hold.
type handle struct {
	s    *Session
	name string
	kind kind

	// mu guards what follows. It is taken before the Session's, never held across a request, and no context is asked or
	// cancelled under it.
	mu      sync.Mutex
	hold    *ticket       // what the value holds, alive or lost, until its release
	freed   chan struct{} // closed when hold is cleared, made when somebody waits for that
	latest  *ticket       // the hold adopted last
	leaving bool          // the release of latest is not confirmed, and whoever asks again is told how it went
}

// begin is what every call that can fail asks first, before it changes anything.
func (h *handle) begin(ctx context.Context, verb string) error {
	switch {
	case h.s == nil:
		return fmt.Errorf("etcdlock: %s %q: no Session: make the value with NewMutex or NewElection and a Session that "+
			"NewSession returned", verb, h.name)
	case ctx == nil:
		return fmt.Errorf("etcdlock: %s %q: nil context: pass context.Background() if nothing bounds the call", verb, h.name)
	case h.name == "":
		return ErrInvalidName
	}
	return nil
}

// held returns the value's ticket, alive or lost; nil if it holds none.
func (h *handle) held() *ticket {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold
}

// adopt makes t the value's hold. It does not while the value has another: then one of the two is lost, since no two
// tickets of a name hold at once, and it is the older one, since a ticket is granted when all before it are gone.
// Either way t leaves the queue: a goroutine that was granted long ago may be late with it.
func (h *handle) adopt(t *ticket) bool {
	h.mu.Lock()
	old := h.hold
	if old == nil {
		h.hold, h.latest, h.leaving = t, t, false
	}
	h.mu.Unlock()
	switch {
	case old == nil:
		return true
	case old.rev < t.rev:
		old.removed(0)
		t.hold.cancel(h.kind.notHeld)
	default:
		t.hold.cancel(ErrLost) // not handed on to whoever waits for it in memory
	}
	t.leave()
	return false
}

// release ends the value's hold and waits for the confirmed deletion of its ticket. Called again after it has failed,
// it reports how that went on. With only, nothing is released but that one hold.
func (h *handle) release(ctx context.Context, only *ticket) error {
	if err := h.begin(ctx, h.kind.give); err != nil {
		return err
	}
	h.mu.Lock()
	t, again := h.hold, false
	switch {
	case only != nil && t != only:
		t = nil
	case t != nil:
		h.hold = nil // the value is free for its next hold before the ticket is touched
		if h.freed != nil {
			close(h.freed)
			h.freed = nil
		}
	case h.leaving:
		t, again, h.leaving = h.latest, true, false
	}
	h.mu.Unlock()
	if t == nil {
		return fmt.Errorf("etcdlock: %s %q: %w", h.kind.give, h.name, h.notHeld())
	}
	err := t.release(ctx, again)
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrUnconfirmed) {
		h.mu.Lock()
		h.leaving = h.latest == t
		h.mu.Unlock()
	}
	return fmt.Errorf("etcdlock: %s %q: %w", h.kind.give, h.name, err)
}

// notHeld is why a value holds nothing.
func (h *handle) notHeld() error {
	if h.s != nil && h.s.closing.Err() != nil {
		return h.s.over()
	}
	return h.kind.notHeld
}

func (h *handle) context() context.Context {
	if t := h.held(); t != nil {
		return t.hold
	}
	return endedContext(h.notHeld())
}

func (h *handle) token() int64 {
	if t := h.held(); t != nil {
		return t.rev
	}
	return 0
}

func (h *handle) key() string {
	if t := h.held(); t != nil {
		return t.key
	}
	return ""
}

func (h *handle) isOwner() clientv3.Cmp { return h.held().guard(h.name) }

func (h *handle) verify(ctx context.Context) error {
	if err := h.begin(ctx, "verify"); err != nil {
		return err
	}
	err := h.notHeld()
	if t := h.held(); t != nil {
		err = t.verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("etcdlock: verify %q: %w", h.name, err)
	}
	return nil
}
