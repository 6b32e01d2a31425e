package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
	"github.com/etcdlock/etcdlock/internal/task"
)

// closeLimit bounds the requests of Close: what etcd has not confirmed by then, the lease's end does.
const closeLimit = 5 * time.Second

// Session is one member of the cluster's locking: a lease that is renewed in the background and that every lock taken
// through the Session hangs on. One per process is enough, for any number of locks and goroutines.
//
// A Session outlives its leases: when one is lost (a partition longer than the TTL, an operator's revoke), the holds
// under it are lost, calls that wait queue again, and the next Lock just works on a new lease.
//
// All its methods are safe for concurrent use.
type Session struct {
	// These never change. Each is safe for concurrent use by itself.
	opts    options
	client  *rpc.Client
	tasks   *task.Group
	leases  *leases
	tickets *queue.Tickets
	lines   *task.InOrder
	unhook  func() bool   // from the end of the client
	ended   atomic.Bool   // end was called
	closed  chan struct{} // closed when end is done
	// watching calls hooks; nil if there are none.
	watching *watching

	asks    context.Context // over when nothing can be asked any more
	endAsks context.CancelCauseFunc
	hurry   context.Context // over when somebody waits for the end of end
	hurryUp context.CancelFunc

	mu        sync.Mutex // guards what follows; a leaf
	unrevoked error      // for the first who asks: why end could not give the lease back
}

// The goroutines of a Session. Its task group owns them, and end ends and awaits them all:
//
//	leases.renewLoop       renews the lease and gets the next one; from NewSession on
//	leases.abandon         revokes a lost lease
//	renewal.start          one for each request of a renewal
//	queue: WatchHeld       one watch on one held ticket; from NewSession on
//	       checkAll, sweep what is done for the tickets once per renewal, and checkAll's requests
//	       checkAt         the check soon after some grants
//	       flush           deletions, of one name or of those that were taken together
//	       askWhoHolds     one read for the error of a caller that gives up
//	       mirrorOthers    one for each name that lingers
//	       census.follow   one for each name and limit of a semaphore that somebody waits for, and for a writer behind readers
//	       dropSlots       one deletion after a ticket with a number was removed
//	       mirrorWaiters   one for each name of which somebody has asked for Wanted
//	       Ticket.keep     one for an UnlockAfter, until etcd has confirmed it
//	       lookWhose       one read after a check found that somebody has written a ticket
//	       keepOurs        one write after that, if the lease is of our own
//
// Besides: Observe has one while it runs, and waits for it; a request that was not answered has two, and so has the
// opening of a watch that was not. LockAll has one for each name that it waits for, and a waiter one for what it reads
// while a watch opens; the caller waits for both. A feed (mirrorOthers, mirrorWaiters, census.follow, Observe) has one
// that opens its watch, and one for each check; it waits for them. Do and Run have one while they release after the end
// of their context, which ends when they return. endLost has one that bounds its deletions once somebody waits for the
// end, and that ends with them. end has one, which Close awaits. Each task.InOrder has one while there are log lines to
// hand on, or hooks to call; end awaits it, for a second at most, and one that a later call starts ends by itself. The
// Sessions of one etcd client share one more, which keeps their watch stream open from the first wait on; the last of
// them ends and awaits it. What else timers and the ends of contexts start does not wait for anything.

// NewSession asks etcd for a lease and returns a Session that keeps it. The context bounds this call alone: its end
// does not end the Session. It fails for a nil client, a bad option, and at once with etcd's error where etcd refuses the
// lease for good. While etcd cannot be reached it tries for as long as ctx allows, and says why in the log, at Warn; so
// without a deadline it waits until there is an etcd. The error then tells the endpoints, the state of the connection and
// what it failed with.
//
// To have a Session end with a context: context.AfterFunc(ctx, func() { _ = s.Close() }), or Orphan in the place of Close.
//
// The client stays the caller's; Close does not close it. Its configuration matters: see the README on several
// endpoints and DialKeepAliveTime.
func NewSession(ctx context.Context, client *clientv3.Client, opts ...Option) (*Session, error) {
	if client == nil {
		return nil, errors.New("etcdlock: NewSession needs an etcd client, got nil")
	}
	if ctx == nil {
		return nil, errors.New("etcdlock: new session: nil context: pass one that bounds how long to wait for the first lease")
	}
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("etcdlock: new session: %w", err)
	}
	if client.Ctx().Err() != nil {
		return nil, fmt.Errorf("etcdlock: new session: %w", ErrClientClosed)
	}
	var lines *task.InOrder
	o.log, lines = logBeside(o.log)
	s := &Session{opts: o, client: rpc.New(client), tasks: task.New(), lines: lines, closed: make(chan struct{})}
	s.asks, s.endAsks = context.WithCancelCause(context.Background())
	s.hurry, s.hurryUp = context.WithCancel(context.Background())
	s.watching = newWatching(o.hooks)
	s.leases = newLeases(s.client, s.tasks, o, s.watching)
	s.tickets = queue.New(s.client, s.tasks, s.leases, o.log, o.linger, s.watching.observer())
	l, err := s.firstLease(ctx)
	if err != nil {
		s.tasks.Stop()
		s.lines.Drain(lastWords)
		s.client.Release()
		return nil, fmt.Errorf("etcdlock: new session: no lease from %s: %w", strings.Join(client.Endpoints(), ", "), err)
	}
	s.leases.begin(s.tickets, l)
	if o.none {
		s.unhook = func() bool { return true }
		s.end(ErrNoLease)
	} else {
		s.run(l)
	}
	s.watching.opened(s)
	return s, nil
}

// run begins what goes on in the background until the Session ends.
func (s *Session) run(first *lease.Lease) {
	if at := s.client.Endpoints(); len(at) == 1 {
		s.opts.log.Info("etcdlock: the etcd client has a single endpoint: if that member fails, holds are lost", "endpoint", at[0])
	}
	s.tasks.Go(s.leases.renewLoop)
	s.tasks.Go(s.tickets.WatchHeld)
	s.unhook = context.AfterFunc(s.client.Ctx(), func() { s.end(ErrClientClosed) })
	if s.leases.given {
		context.AfterFunc(first.Context(), func() { s.end(ErrLeaseLost) }) // unless it is what ends the lease
	}
}

// firstLease gets the lease to begin with.
func (s *Session) firstLease(ctx context.Context) (*lease.Lease, error) {
	switch {
	case s.opts.none: // one that was never there: its TTL is what Observe goes by
		l := lease.New(clientv3.NoLease, s.opts.ttl, 0, int64(s.opts.ttl/time.Second), lease.Now())
		l.End(ErrNoLease)
		return l, nil
	case s.leases.given:
		return firstRenewal(ctx, s.client, s.tickets, s.opts)
	}
	return firstGrant(ctx, s.client, s.opts)
}

// Lease returns the lease at the moment. It changes when a lost one is replaced; until then it is that of the lost one.
func (s *Session) Lease() clientv3.LeaseID { return s.leases.current().ID }

// LeaseContext returns a context that is over when that lease is: the moment nothing can be relied on any more that hangs on
// it. context.Cause tells why: ErrLost, ErrClosed, ErrClientClosed, ErrNoLease. It asks the clock as Mutex.Context does, and
// every hold on the lease ends with it. After a loss it stays that of the lost lease until there is the next one, so:
//
//	for ctx := s.LeaseContext(); ; ctx = s.LeaseContext() {
//		<-ctx.Done() // lost, or the Session is over
//		...
//	}
//
// waits in a tight loop unless what comes there waits for the next lease, as Lock does.
func (s *Session) LeaseContext() context.Context { return lease.OfLease(s.leases.current().Lease) }

// TTL returns the time to live that etcd granted to that lease.
func (s *Session) TTL() time.Duration { return s.leases.current().TTL }

// Identity returns what others see as the holder.
func (s *Session) Identity() string { return s.opts.identity }

// over is why the Session is: ErrClosed, ErrClientClosed, ErrNoLease or ErrLeaseLost; nil while it is not.
func (s *Session) over() error { return context.Cause(s.tasks.Closing()) }

// asking is why nothing can be asked any more: ErrClosed or ErrClientClosed. A Session without a lease can ask.
func (s *Session) asking() error { return context.Cause(s.asks) }
