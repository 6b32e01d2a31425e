package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// closeLimit bounds the requests of Close: what etcd has not confirmed by then, the lease's end does.
const closeLimit = 5 * time.Second

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
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.shut(cause) // nobody's callback on this context takes mu
	l := s.lease
	s.mu.Unlock()
	defer close(s.closed)

	alive := l.alive()
	working, left := s.stillWorking(), l.left()
	l.end(cause) // renewals stop here, so left is final
	err := cause
	switch {
	case !alive:
		err = nil // keep has revoked it, or etcd is away and it ends by itself
	case cause == ErrClosed: //nolint:errorlint // this very value
		awaitWork(working, left)
		limit, cancel := context.WithTimeout(s.back, closeLimit)
		s.mu.Lock()
		keys := l.keysLocked()
		s.mu.Unlock()
		err = s.revoke(limit, l, keys)
		cancel()
	}
	s.mu.Lock()
	s.stopped = true // nothing is spawned from here on
	if err != nil {
		s.unrevoked = fmt.Errorf("etcdlock: close: the lease %x ends by itself within %v: %w", l.id, l.granted, err)
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.streams.release(s.client)
}

// over is why the Session is: ErrClosed or ErrClientClosed; nil while it is not.
func (s *Session) over() error { return context.Cause(s.closing) }

// stillWorking makes a channel that is closed when the functions of Do and Run which still have their holds have ended;
// nil if there are none. Nothing is given back that the others might need.
func (s *Session) stillWorking() (ended <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.working, func(t *ticket, _ struct{}) bool { return t.hold.Context.Err() != nil })
	if len(s.working) > 0 {
		s.idle = make(chan struct{})
	}
	return s.idle
}

// awaitWork waits for that, at most for limit.
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

// workBegins and workEnds keep the functions that Close waits for. Once Close has begun there are no more of them.
func (s *Session) workBegins(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.working[t] = struct{}{}
	return true
}

func (s *Session) workEnds(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.working, t)
	if len(s.working) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

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
