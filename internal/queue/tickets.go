// Package queue is the engine of every lock: tickets that wait in etcd for their turn. Its errors
// say what happened; the caller adds which call that was, and of which name.
//
// A ticket is a key directly under the name of a lock, bound to a lease; see class.go for who holds. One Session has one
// Tickets, which owns all its tickets in memory; Ticket is one of them, and state.go the only place that changes what
// state it is in.
package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
	"github.com/etcdlock/etcdlock/internal/task"
)

// What a caller can act on.
var (
	// ErrUnconfirmed says that a hold was released, and that etcd has not confirmed that its ticket is gone.
	ErrUnconfirmed = errors.New("etcdlock: released, but not yet confirmed by etcd")
	// ErrClosed is the cause of what ends because the Session does.
	ErrClosed = errors.New("etcdlock: session closed")
	// ErrShared says that an election has found a ticket in its queue that does not hold alone.
	ErrShared = errors.New("etcdlock: readers or permits queue for this name: an election needs a name of its own")
)

// errRequeue says that a ticket or its lease was removed while it waited: its caller queues again.
var errRequeue = errors.New("etcdlock: ticket removed while waiting")

// Tickets is all that one Session has in the queues of etcd.
type Tickets struct {
	// These never change. Each is safe for concurrent use by itself, but for what the tally says is guarded.
	c      *rpc.Client
	tasks  *task.Group
	leases Leases
	log    *slog.Logger
	linger time.Duration

	observer Observer // nil if nobody wants to know
	tally    tally

	held   chan struct{} // tells WatchHeld that something is held
	checks task.Aside    // of tickets
	sweeps task.Aside    // for strays

	// mu guards what follows, and what groups, tickets and leases say that it guards. It is taken under no other. Under it
	// only the task group's, and that of the events for hooks, is taken. The clock is not asked whether a lease or a hold
	// is over (Lease.Alive; Done, Err and Value of a Hold), since that may end a lease, which cancels contexts. The contexts inside
	// them may be asked. Nothing is sent under it and nobody is waited for.
	mu       sync.Mutex
	lease    *Lease // the newest, which may be over
	groups   map[string]*group
	readable string // a key that this client may read
	overruns map[*Ticket]*overrun
	warned   map[string]bool    // the names of semaphores whose members were seen to disagree
	kept     map[string][]*kept // watches between two waits, by the name of the lock; the oldest first
}

// Leases is where tickets get the lease that they hang on.
type Leases interface {
	// Live returns a lease that can be relied on now; it waits for the next one if the last was lost.
	Live(ctx context.Context) (*Lease, error)
	// LastErr is what the last renewal or grant failed with, nil after a success.
	LastErr() error
	// CheckNow asks for a renewal now, which tells whether the lease is still there.
	CheckNow()
}

// Lease is a lease with the tickets that hang on it.
type Lease struct {
	// These never change.
	*lease.Lease
	shared bool // others may have tickets on it: this Session did not make it

	// open is over when nobody queues under the lease any more: it is over itself, or the Session has begun to end. What
	// holds then, holds on.
	open   context.Context
	unhook func() bool // from the end of the Session

	// Guarded by the Tickets' mu.
	tickets  map[string]*Ticket // every ticket that may be in etcd under this lease, by key
	left     []remains          // of tickets that were given up after the lease's end, which nobody has deleted
	claims   map[string]bool    // keys of which a claim may arrive late, see resume.go; true once what it made is deleted
	passedOn map[string]int64   // tickets that another Session has taken up, perhaps on this same lease: their create revisions
	names    names
}

// sessionOver is why the Session ended, if that is what ended the lease; else nil. While the Session waits for its holds to
// be released, the lease and all that hangs on it goes on.
func (l *Lease) sessionOver() error {
	if cause := context.Cause(l.Context()); cause != nil && !errors.Is(cause, lease.ErrLost) {
		return cause
	}
	return nil
}

// New returns the tickets of a Session, of which there are none yet. A mutex's lock lingers for linger after its release.
// observer may be nil.
func New(
	c *rpc.Client, tasks *task.Group, leases Leases, log *slog.Logger, linger time.Duration, observer Observer,
) *Tickets {
	return &Tickets{
		c: c, tasks: tasks, leases: leases, log: log, linger: linger, observer: observer, held: make(chan struct{}, 1),
		groups: make(map[string]*group), readable: "etcdlock", overruns: make(map[*Ticket]*overrun), warned: make(map[string]bool),
		kept: make(map[string][]*kept),
	}
}

// Use has new tickets hang on l from now on; shared says that others may use l, too.
func (q *Tickets) Use(l *lease.Lease, shared bool) *Lease {
	under := &Lease{Lease: l, shared: shared, tickets: make(map[string]*Ticket), claims: make(map[string]bool), passedOn: make(map[string]int64)}
	if shared {
		under.names = besideOthers()
	}
	open, shut := context.WithCancel(l.Context())
	under.open, under.unhook = open, context.AfterFunc(q.tasks.Closing(), shut)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lease = under
	return under
}

// bound returns ctx, ended early, with errRequeue, when nobody queues under the lease any more: for requests made on the
// way to a hold under it. Whoever waits long does without, for memory's sake.
func (l *Lease) bound(ctx context.Context) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(l.open, func() { cancel(errRequeue) })
	return bounded, func() { unhook(); cancel(nil) }
}

// Drop forgets the tickets of a lease that is over, and returns the keys that etcd may still have, and the names that
// were held.
func (q *Tickets) Drop(l *Lease) (keys, holds []string) {
	l.unhook()
	q.mu.Lock()
	defer q.mu.Unlock()
	keys, holds = l.listLocked()
	for _, t := range l.tickets {
		t.goneLocked(0)
	}
	return keys, holds
}

// List lists the tickets that may be in etcd under the lease, and the names that are held.
func (q *Tickets) List(l *Lease) (keys, holds []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return l.listLocked()
}

func (l *Lease) listLocked() (keys, holds []string) {
	for key, t := range l.tickets {
		if t.state != staying { // that one is not deleted by its name
			keys = append(keys, key)
		}
		if t.state == held {
			holds = append(holds, t.group.Name)
		}
	}
	return keys, holds
}

// group is a Session's tickets of one name, from the first to the last of them.
type group struct {
	// These never change.
	q *Tickets
	Keys

	// Guarded by the Tickets' mu.
	refs     int32     // tickets that are not gone
	flushes  int16     // runs of deletions under way
	asking   bool      // who holds, see askWhoHolds
	counter  counter   // of their names
	holder   *Ticket   // the one that holds, as far as is known: one that was removed may have been granted after it
	idle     *Ticket   // the one that idles
	wants    *wants    // the holds that ask who waits, if any
	others   *others   // who else queues, while that matters
	toDelete []*Ticket // left, in that order
	goneAt   int64     // the revision of the last confirmed deletion
	lastErr  error     // what the last deletion failed with

	census map[Class]*census // of the permits, by how many there are

	seen   *Contender    // who was seen to hold
	seenAt lease.Instant // when
}

// groupLocked returns the group of a name, made for its first ticket.
func (q *Tickets) groupLocked(name string) *group {
	g := q.groups[name]
	if g == nil {
		g = &group{q: q, Keys: KeysOf(name)}
		q.groups[name] = g
	}
	return g
}

// dropLocked forgets the group with its last ticket, unless it is kept for a while to linger again.
func (g *group) dropLocked() {
	switch {
	case g.refs > 0:
	case g.others != nil:
		g.others.rest.Reset(g.q.linger)
	default:
		delete(g.q.groups, g.Name)
	}
}
