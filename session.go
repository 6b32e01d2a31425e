package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

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
	unhook  func() bool   // from the end of the client
	closed  chan struct{} // closed when end is done

	mu        sync.Mutex // guards what follows; a leaf
	unrevoked error      // for the first Close: why end could not give the lease back
}

// The goroutines of a Session. Its task group owns them, and Close ends and awaits them all:
//
//	leases.renewLoop       renews the lease and gets the next one; from NewSession on
//	leases.abandon         revokes a lost lease
//	renewal.start          one for each request of a renewal
//	lines.write            hands on log lines, while there are any
//	queue: WatchHeld       one watch on one held ticket; from NewSession on
//	       checkAll, sweep what is done for the tickets once per renewal, and checkAll's requests
//	       checkAt         the check soon after some grants
//	       flush           deletions
//	       askWhoHolds     one read for the error of a caller that gives up
//	       mirrorOthers    one for each name that lingers
//
// Besides: Observe has one while it runs, and waits for it; a request that was not answered has two. Do and Run have one while they
// release after the end of their context, which ends when they return. The end of the client runs end in one, which Close
// awaits. The Sessions of one etcd client share one more, which keeps their watch stream open from the first wait on; the
// last of them ends and awaits it. What timers and the ends of contexts start does not wait for anything.

// NewSession asks etcd for a lease and returns a Session that keeps it. The context bounds this call alone: its end
// does not end the Session. It fails for a nil client, a bad option, and at once with etcd's error where etcd refuses the
// lease for good. While etcd cannot be reached it tries for as long as ctx allows, and says why in the log, at Warn; so
// without a deadline it waits until there is an etcd. The error then tells the endpoints, the state of the connection and
// what it failed with.
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
	s := &Session{opts: o, client: rpc.New(client), tasks: task.New(), closed: make(chan struct{})}
	l, err := firstGrant(ctx, s.client, o)
	if err != nil {
		s.client.Release()
		return nil, fmt.Errorf("etcdlock: new session: no lease granted by %s: %w", strings.Join(client.Endpoints(), ", "), err)
	}
	log := logBeside(o.log, s.tasks)
	s.leases = newLeases(s.client, s.tasks, o.ttl, log)
	s.tickets = queue.New(s.client, s.tasks, s.leases, log, o.linger)
	s.leases.begin(s.tickets, l)
	if len(client.Endpoints()) == 1 {
		o.log.Info("etcdlock: the etcd client has a single endpoint: if that member fails, holds are lost",
			"endpoint", client.Endpoints()[0])
	}
	s.tasks.Go(s.leases.renewLoop)
	s.tasks.Go(s.tickets.WatchHeld)
	s.unhook = context.AfterFunc(client.Ctx(), func() { s.end(ErrClientClosed) })
	return s, nil
}

// Lease returns the lease at the moment. It changes when a lost one is replaced; until then it is that of the lost one.
func (s *Session) Lease() clientv3.LeaseID { return s.leases.current().ID }

// TTL returns the time to live that etcd granted to that lease.
func (s *Session) TTL() time.Duration { return s.leases.current().TTL }

// Identity returns what others see as the holder.
func (s *Session) Identity() string { return s.opts.identity }

// Close gives everything back. Calls that wait return ErrClosed; every hold's Context ends with the cause ErrClosed;
// functions that run under Do or Run are waited for, until the deadlines of their holds at the latest (so Close
// called from inside such a function waits that long); then the lease is revoked, which removes every ticket at once.
// Holders by plain Lock are not waited for: unlock before closing.
//
// With etcd out of reach it returns within 5 s of the end of those functions, with etcd's error; the lease then ends
// by itself, a TTL after its last renewal. A lease that was lost already costs nothing. A second Close waits for the
// first one and returns nil. It is safe for concurrent use and does not close the etcd client.
//
// A client that is closed first ends the Session by itself, at once: holds and calls then end with ErrClientClosed, and
// nothing can be given back, so the locks are free when the lease has run out. Close returns ErrClientClosed then.
func (s *Session) Close() error {
	s.unhook()
	s.end(ErrClosed)
	<-s.closed
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.unrevoked
	s.unrevoked = nil
	return err
}

// end is the end of the Session, for one cause or the other. Only the first call does anything.
func (s *Session) end(cause error) {
	if !s.tasks.Shut(cause) {
		return
	}
	defer close(s.closed)
	l := s.leases.last()
	alive := l.Alive()
	working, left := s.tasks.Working(), l.Left()
	l.End(cause) // renewals stop here, so left is final
	err := cause
	switch {
	case !alive:
		err = nil // it was abandoned, or etcd is away and it ends by itself
	case cause == ErrClosed: //nolint:errorlint // this very value
		awaitWork(working, left)
		limit, cancel := context.WithTimeout(s.tasks.Back(), closeLimit)
		err = s.tickets.Revoke(limit, l.Lease, s.tickets.Keys(l))
		cancel()
	}
	if err != nil {
		s.mu.Lock()
		s.unrevoked = fmt.Errorf("etcdlock: close: the lease %x ends by itself within %v: %w", l.ID, l.TTL, err)
		s.mu.Unlock()
	}
	s.tasks.Stop()
	s.client.Release()
}

// awaitWork waits for the functions of Do and Run, at most for limit.
func awaitWork(working <-chan struct{}, limit time.Duration) {
	if working == nil {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-working:
	case <-timer.C:
	}
}

// over is why the Session is: ErrClosed or ErrClientClosed; nil while it is not.
func (s *Session) over() error { return context.Cause(s.tasks.Closing()) }
