package etcdlock

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Election elects one leader among the values that campaign for one name: in one Session, in one process or across the
// cluster. An Election value is one candidate. It is shared by goroutines and not copied; all methods are safe for
// concurrent use. Observe, Leader and Run need no campaign before them.
//
// Leading can end without Resign (see ErrLost); Context tells.
type Election struct {
	handle

	candidate bool          // a Campaign is queued; guarded by mu
	proclaims chan struct{} // full while a Proclaim is under way
	seen      queue.Seen    // who was in the way of the last TryCampaign; guarded by mu
}

// Leader is the state of an election: who leads. The zero Leader stands for nobody.
type Leader struct {
	// Value is what the leader campaigned with or proclaimed last.
	Value string
	// Token is the leader's fencing token, the create revision of its ticket; 0 when nobody leads.
	Token int64
	// Key is the key of the leader's ticket.
	Key string
	// Lease is what the ticket hangs on; see Contender.Lease.
	Lease clientv3.LeaseID
	// Modified is the revision at which the value was written last: by Campaign (then it is the Token), by Proclaim or by
	// Resume. Version counts these from 1.
	Modified, Version int64
}

// NewElection returns an Election for name, used verbatim as NewMutex does. An empty name is ErrInvalidName at the
// first Campaign. It asks nothing of etcd.
func NewElection(s *Session, name string) *Election {
	return &Election{handle: handle{named: named{s: s, name: name, kind: electionKind}}, proclaims: make(chan struct{}, 1)}
}

// Name returns the name as it was given.
func (e *Election) Name() string { return e.name }

// Campaign blocks until this value leads, first come, first served by create revision, or ctx ends. Others see value
// as the leader; "" stands for the Session's identity. Once it has returned nil, ctx has no bearing on leading.
//
// An error means that the value does not lead and that no ticket stays in the queue, as for Mutex.Lock, with the same
// errors. ErrCampaigning is returned at once if the value is a candidate or leads already; after a loss, Campaign
// queues anew. A candidate that finds a reader or a permit ahead of it is told that the name is not an election's.
func (e *Election) Campaign(ctx context.Context, value string) error {
	_, err := e.campaign(ctx, e.of().take, func() (*queue.Ticket, error) { return e.acquire(ctx, e.orIdentity(value)) })
	return err
}

// TryCampaign makes this value the leader if nobody leads and nobody waits to, and else says at once who does. Its costs and
// its errors are those of Mutex.TryLock, and ErrCampaigning as for Campaign.
func (e *Election) TryCampaign(ctx context.Context, value string) error {
	_, err := e.campaign(ctx, e.of().take, func() (*queue.Ticket, error) {
		t, by, err := e.try(ctx, e.orIdentity(value), &e.mu, &e.seen)
		switch {
		case by != nil && by.Class() != "":
			err = e.failed("campaign", queue.ErrShared)
		case by != nil:
			err = e.lockedBy(by)
		}
		return t, err
	})
	return err
}

// campaign makes a candidate of the value while take gets it the lead.
func (e *Election) campaign(
	ctx context.Context, verb string, take func() (*queue.Ticket, error),
) (*Hold, error) {
	if err := e.begin(ctx, verb); err != nil {
		return nil, err
	}
	old := e.held()
	lost := old != nil && old.Context().Err() != nil
	e.mu.Lock()
	if e.candidate || e.hold != nil && (e.hold != old || !lost) {
		e.mu.Unlock()
		return nil, e.failed(verb, ErrCampaigning)
	}
	e.candidate, e.hold = true, nil // a loss is no secret: Context has told, and the next lead is another hold
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.candidate = false
	}()
	t, err := take()
	if err != nil {
		return nil, err
	}
	return e.adopt(t), nil // nobody else adopts: there is one candidate, and it came without a hold
}

// orIdentity is what others see for value.
func (e *Election) orIdentity(value string) string {
	if value == "" {
		return e.s.opts.identity
	}
	return value
}

// Proclaim changes the value that others see, without another election. ErrNotLeader if this value does not lead,
// ErrLost if it has ceased to. With any other error the new value may or may not be in force; the value still leads,
// and Proclaim can be repeated. Calls follow one another, and once one has returned nil, no earlier one changes
// anything any more, however late its requests arrive.
//
// On a lease that was given (WithLease), to proclaim the value that is in force already can cost the lead: if the etcd client
// repeats that request by itself, it cannot be told from another Session that has taken the lead up. Then it is ErrLost, and
// the key stays for as long as the lease is renewed. A new value has no such risk.
func (e *Election) Proclaim(ctx context.Context, value string) error {
	if err := e.begin(ctx, "proclaim"); err != nil {
		return err
	}
	err := e.notHeld()
	if h := e.held(); h != nil {
		err = h.ticket.Proclaim(ctx, e.proclaims, e.orIdentity(value))
	}
	if err != nil {
		return e.failed("proclaim", err)
	}
	return nil
}

// Resign steps down. It returns nil when etcd has confirmed that the ticket is gone; from the moment it is called the
// value does not lead, whatever it returns. ErrLost: it had ceased to lead before. ErrNotLeader: it did not lead;
// ErrClosed: nobody of a closed Session does. ErrUnconfirmed says that the deletion is not confirmed yet; it goes on in
// the background, and Resign called again before the next Campaign reports how that went. It returns when ctx ends and,
// with etcd out of reach, by the hold's deadline as it is at the call; see Mutex.Unlock for a ctx that is over already.
func (e *Election) Resign(ctx context.Context) error { return e.release(ctx, nil, 0) }

// Leader asks etcd who leads, whoever that is; ErrNoLeader if nobody does. It retries while etcd is away, until ctx
// ends.
func (e *Election) Leader(ctx context.Context) (Leader, error) {
	if err := e.begin(ctx, "leader of"); err != nil {
		return Leader{}, err
	}
	all, _, err := e.list(ctx)
	if err == nil && (len(all) == 0 || all[0].Class() != "") {
		err = ErrNoLeader
	}
	if err != nil {
		return Leader{}, e.failed("leader of", err)
	}
	return leader(all[0]), nil
}

// leader is what a contender that is first leads with; the zero Leader for nobody. Readers and permits lead nothing: the
// name is not an election's.
func leader(first *queue.Contender) Leader {
	if first == nil || first.Class() != "" {
		return Leader{}
	}
	return Leader{
		Value: first.Value, Token: first.Rev, Key: first.Key, Lease: first.Lease, Modified: first.Mod, Version: first.Version,
	}
}

// Context returns a context for the work done while leading; see Mutex.Context. When this value does not lead it is
// over already, with the cause ErrNotLeader.
func (e *Election) Context() context.Context { return e.context() }

// Token returns the leader's fencing token, 0 when this value does not lead; see Mutex.Token.
func (e *Election) Token() int64 { return e.held().Token() }

// Key returns the key of the leader's ticket, empty when this value does not lead.
func (e *Election) Key() string { return e.held().Key() }

// IsOwner returns a guard for an etcd transaction, true only while this lead's ticket exists; see Mutex.IsOwner.
func (e *Election) IsOwner() clientv3.Cmp { return e.isOwner() }

// Wanted returns a channel that is closed once another candidate waits behind this lead; see Mutex.Wanted.
func (e *Election) Wanted() <-chan struct{} { return e.held().Wanted() }

// Verify asks etcd, by one linearizable request, whether this value leads; see Mutex.Verify. ErrNotLeader if it does not.
func (e *Election) Verify(ctx context.Context) error { return e.verify(ctx) }
