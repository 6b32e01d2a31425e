package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Session is one member of the cluster's locking: a lease that is renewed in the background and that every lock taken
// through the Session hangs on. One per process is enough, for any number of locks and goroutines.
//
// A Session outlives its leases: when one is lost (a partition longer than the TTL, an operator's revoke), the holds
// under it are lost, calls that wait queue again, and the next Lock just works on a new lease.
//
// It owns its goroutines: keep (renewals, checks, the next lease), stand (one watch on one held ticket) and the
// short-lived ones that send deletions. The Sessions of one etcd client share one more, which keeps their watch stream
// open from the first wait on. Close ends and awaits them all, the last Session's also the shared one.
type Session struct {
	client *clientv3.Client
	opts   options

	closing context.Context // over once Close has begun, with ErrClosed, or with ErrClientClosed once the client is
	shut    context.CancelCauseFunc
	back    context.Context // for requests of the background; over at the end of Close
	stop    context.CancelFunc
	unhook  func() bool   // from the end of the client
	closed  chan struct{} // closed when end is done
	wg      sync.WaitGroup

	poke    chan struct{} // asks keep for a check now
	holds   chan struct{} // tells stand that something is held
	checks  aside         // of tickets
	sweeps  aside         // for strays
	streams *streams      // which watch stream is in use
	rtt     atomic.Int64  // of the last answered renewal or grant, in ns
	fewer   atomic.Int64  // operations in one Txn than etcd takes by default, see partSize

	mu        sync.Mutex    // guards what follows, and the fields of lines, tickets and leases that say so
	lease     *lease        // the newest; may be over
	next      chan struct{} // closed with the next lease, or its refusal
	refused   error         // what etcd refused the next lease with, for good
	lines     map[string]*line
	probe     string               // a key that this client may read
	trouble   error                // what the last renewal or grant failed with, nil after a success
	working   map[*ticket]struct{} // those under which functions of Do and Run are running
	idle      chan struct{}        // closed when there are none, made when somebody waits for that
	stopped   bool
	unrevoked error // for the first Close: why end could not give the lease back
}

// NewSession asks etcd for a lease and returns a Session that keeps it. The context bounds this call alone: its end
// does not end the Session. It fails with etcd's error if no lease is granted, and for a nil client or a bad option.
//
// The client stays the caller's; Close does not close it. Its configuration matters: see the README on several
// endpoints and DialKeepAliveTime.
func NewSession(ctx context.Context, client *clientv3.Client, opts ...Option) (*Session, error) {
	if client == nil {
		return nil, errors.New("etcdlock: NewSession needs an etcd client, got nil")
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
	s := &Session{
		client:  client,
		opts:    o,
		closed:  make(chan struct{}),
		poke:    make(chan struct{}, 1),
		holds:   make(chan struct{}, 1),
		next:    make(chan struct{}),
		lines:   make(map[string]*line),
		working: make(map[*ticket]struct{}),
		probe:   "etcdlock",
	}
	start := now()
	l, err := grant(ctx, client, o.ttl)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: new session: no lease granted: %w", err)
	}
	s.rtt.Store(int64(now().sub(start)))
	s.streams = streamsOf(client)
	s.closing, s.shut = context.WithCancelCause(context.Background())
	s.back, s.stop = context.WithCancel(context.Background())
	s.lease = l
	if len(client.Endpoints()) == 1 {
		o.log.Info("etcdlock: the etcd client has a single endpoint: if that member fails, holds are lost",
			"endpoint", client.Endpoints()[0])
	}
	s.spawn(func() { s.keep(l) })
	s.spawn(s.stand)
	s.unhook = context.AfterFunc(client.Ctx(), func() { s.end(ErrClientClosed) })
	return s, nil
}

// Lease returns the lease at the moment. It changes when a lost one is replaced.
func (s *Session) Lease() clientv3.LeaseID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease.id
}

// TTL returns the time to live that etcd granted to the lease at the moment.
func (s *Session) TTL() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease.granted
}

// Identity returns what others see as the holder.
func (s *Session) Identity() string { return s.opts.identity }

// spawn starts a goroutine that Close awaits, or nothing when Close no longer would.
func (s *Session) spawn(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spawnLocked(f)
}

// spawnLocked is spawn, and tells whether it started.
func (s *Session) spawnLocked(f func()) bool {
	if s.stopped {
		return false
	}
	s.wg.Go(f)
	return true
}

// live returns a lease that can be relied on now, waiting for the next one if the last was lost. What etcd refuses the
// next one with for good ends the wait.
func (s *Session) live(ctx context.Context) (*lease, error) {
	for {
		s.mu.Lock()
		l, next, trouble, refused := s.lease, s.next, s.trouble, s.refused
		s.mu.Unlock()
		switch {
		case s.closing.Err() != nil:
			return nil, s.over()
		case l.alive():
			return l, nil
		case refused != nil:
			return nil, fmt.Errorf("no lease granted: %w", refused)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, overErr(ctx, trouble)
		case <-s.closing.Done():
		}
	}
}
