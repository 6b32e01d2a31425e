package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Election elects one leader among the values that campaign for one name: in one Session, in one process or across the
// cluster. An Election value is one candidate. It is shared by goroutines and not copied; all methods are safe for
// concurrent use. Observe, Leader and Run need no campaign before them.
//
// Leading can end without Resign (see ErrLost); Context tells.
type Election struct {
	s    *Session
	name string

	mu      sync.Mutex // guards what follows; never held across a request; taken before the Session's
	running bool       // a Campaign is queued
	hold    *ticket    // what the value leads with, alive or lost
	leaving *ticket    // what a Resign that failed has left to the background
}

// Leader is the state of an election: who leads. The zero Leader stands for nobody.
type Leader struct {
	// Value is what the leader campaigned with or proclaimed last.
	Value string
	// Token is the leader's fencing token, the create revision of its ticket; 0 when nobody leads.
	Token int64
	// Key is the key of the leader's ticket.
	Key string
}

// NewElection returns an Election for name, used verbatim as NewMutex does. An empty name is ErrInvalidName at the
// first Campaign. It asks nothing of etcd.
func NewElection(s *Session, name string) *Election { return &Election{s: s, name: name} }

// Name returns the name as it was given.
func (e *Election) Name() string { return e.name }

// Campaign blocks until this value leads, first come, first served by create revision, or ctx ends. Others see value
// as the leader; "" stands for the Session's identity. Once it has returned nil, ctx has no bearing on leading.
//
// An error means that the value does not lead and that no ticket stays in the queue, as for Mutex.Lock, with the same
// errors. ErrCampaigning is returned at once if the value is a candidate or leads already; after a loss, Campaign
// queues anew.
func (e *Election) Campaign(ctx context.Context, value string) error {
	_, err := e.campaign(ctx, value)
	return err
}

func (e *Election) campaign(ctx context.Context, value string) (*ticket, error) {
	if value == "" {
		value = e.s.opts.identity
	}
	e.mu.Lock()
	if e.running || e.hold != nil && e.hold.hold.Err() == nil {
		e.mu.Unlock()
		return nil, fmt.Errorf("etcdlock: campaign %q: %w", e.name, ErrCampaigning)
	}
	e.running, e.hold = true, nil
	e.mu.Unlock()
	t, err := e.s.acquire(ctx, electionKind, e.name, value)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = false
	if err == nil {
		e.hold, e.leaving = t, nil
	}
	return t, err
}

// Proclaim changes the value that others see, without another election. ErrNotLeader if this value does not lead,
// ErrLost if it has ceased to. With any other error the new value may or may not be in force; the value still leads,
// and Proclaim can be repeated.
func (e *Election) Proclaim(ctx context.Context, value string) error {
	t := e.leading()
	if t == nil {
		return fmt.Errorf("etcdlock: proclaim %q: %w", e.name, e.notLeading())
	}
	if value == "" {
		value = e.s.opts.identity
	}
	if err := t.proclaim(ctx, value); err != nil {
		return fmt.Errorf("etcdlock: proclaim %q: %w", e.name, err)
	}
	return nil
}

// proclaim writes through the ticket's own guard, so that a request that arrives after the end of the hold does
// nothing. It is safe to repeat.
func (t *ticket) proclaim(ctx context.Context, value string) error {
	if t.hold.Err() != nil {
		return t.ended()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.hold, cancel)()
	var resp *clientv3.TxnResponse
	err := t.line.s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = t.line.s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)).
			Then(clientv3.OpPut(t.key, value, clientv3.WithLease(t.lease.id))).
			Commit()
		return err
	})
	if err != nil && errors.Is(t.leaseGone(err), errRequeue) || t.hold.Err() != nil {
		return t.ended()
	}
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		t.removed(resp.Header.Revision)
		return ErrLost
	}
	return nil
}

// Resign steps down. It returns nil when etcd has confirmed that the ticket is gone; from the moment it is called the
// value does not lead, whatever it returns. ErrLost: it had ceased to lead before. ErrNotLeader: it did not lead;
// ErrClosed: nobody of a closed Session does. Another error says that the deletion is not confirmed yet; it goes on in
// the background, and Resign called again before the next Campaign reports how that went. It returns when ctx ends and,
// with etcd out of reach, by the hold's own deadline at the latest.
func (e *Election) Resign(ctx context.Context) error {
	e.mu.Lock()
	t, again := e.hold, false
	if t != nil {
		e.hold = nil
	} else {
		t, again = e.leaving, true
		e.leaving = nil
	}
	e.mu.Unlock()
	if t == nil {
		return fmt.Errorf("etcdlock: resign %q: %w", e.name, e.notLeading())
	}
	return e.release(ctx, t, again)
}

func (e *Election) release(ctx context.Context, t *ticket, again bool) error {
	err := t.release(ctx, again)
	if err == nil {
		return nil
	}
	if t.stays() {
		e.mu.Lock()
		if e.hold == nil {
			e.leaving = t
		}
		e.mu.Unlock()
	}
	return fmt.Errorf("etcdlock: resign %q: %w", e.name, err)
}

// resignOnly is Resign for one certain hold.
func (e *Election) resignOnly(ctx context.Context, t *ticket) error {
	e.mu.Lock()
	mine := e.hold == t
	if mine {
		e.hold = nil
	}
	e.mu.Unlock()
	if !mine {
		return nil // fn resigned by itself
	}
	return e.release(ctx, t, false)
}

// leading returns the value's ticket, alive or lost; nil if it has none.
func (e *Election) leading() *ticket {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hold
}

func (e *Election) notLeading() error {
	if e.s.closing.Err() != nil {
		return e.s.over()
	}
	return ErrNotLeader
}

// Leader asks etcd who leads, whoever that is; ErrNoLeader if nobody does. It retries while etcd is away, until ctx
// ends.
func (e *Election) Leader(ctx context.Context) (Leader, error) {
	kvs, err := e.s.contenders(ctx, e.name)
	if err == nil && len(kvs) == 0 {
		err = ErrNoLeader
	}
	if err != nil {
		return Leader{}, fmt.Errorf("etcdlock: leader of %q: %w", e.name, err)
	}
	return Leader{Value: string(kvs[0].Value), Token: kvs[0].CreateRevision, Key: string(kvs[0].Key)}, nil
}

// Context returns a context for the work done while leading; see Mutex.Context. When this value does not lead it is
// over already, with the cause ErrNotHeld.
func (e *Election) Context() context.Context {
	if t := e.leading(); t != nil {
		return t.hold
	}
	if e.s.closing.Err() != nil {
		return endedContext(e.s.over())
	}
	return endedContext(ErrNotHeld)
}

// Token returns the leader's fencing token, 0 when this value does not lead; see Mutex.Token.
func (e *Election) Token() int64 {
	if t := e.leading(); t != nil {
		return t.rev
	}
	return 0
}

// Key returns the key of the leader's ticket, empty when this value does not lead.
func (e *Election) Key() string {
	if t := e.leading(); t != nil {
		return t.key
	}
	return ""
}

// IsOwner returns a guard for an etcd transaction, true only while this lead's ticket exists; see Mutex.IsOwner.
func (e *Election) IsOwner() clientv3.Cmp { return e.leading().guard(e.name) }

// Verify asks etcd, by one linearizable request, whether this value leads; see Mutex.Verify. ErrNotLeader if it does not.
func (e *Election) Verify(ctx context.Context) error {
	err := e.notLeading()
	if t := e.leading(); t != nil {
		err = t.verify(ctx)
	}
	if err != nil {
		return fmt.Errorf("etcdlock: verify %q: %w", e.name, err)
	}
	return nil
}
