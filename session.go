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

	closing context.Context // over, with ErrClosed, once Close has begun
	shut    context.CancelCauseFunc
	back    context.Context // for requests of the background; over at the end of Close
	stop    context.CancelFunc
	closed  chan struct{} // closed when Close is done
	wg      sync.WaitGroup

	poke    chan struct{} // asks keep for a check now
	holds   chan struct{} // tells stand that something is held
	checks  aside         // of tickets
	sweeps  aside         // for strays
	streams *streams      // which watch stream is in use
	rtt     atomic.Int64  // of the last answered renewal or grant, in ns
	fewer   atomic.Int64  // operations in one Txn than etcd takes by default, see partSize

	mu      sync.Mutex // guards what follows, and the fields of lines, tickets and leases that say so
	lease   *lease     // the newest; may be over
	next    chan struct{}
	lines   map[string]*line
	probe   string // a key that this client may read
	trouble error  // what the last renewal or grant failed with, nil after a success
	work    int    // functions of Do and Run that are running
	idle    chan struct{}
	stopped bool
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
	s := &Session{
		client: client,
		opts:   o,
		closed: make(chan struct{}),
		poke:   make(chan struct{}, 1),
		holds:  make(chan struct{}, 1),
		next:   make(chan struct{}),
		lines:  make(map[string]*line),
		probe:  "etcdlock",
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
	return s.lease.ttl
}

// Identity returns what others see as the holder.
func (s *Session) Identity() string { return s.opts.identity }

// Close gives everything back. Calls that wait return ErrClosed; every hold's Context ends with the cause ErrClosed;
// functions that run under Do or Run are waited for, until the deadlines of their holds at the latest (so Close
// called from inside such a function waits that long); then the lease is revoked, which removes every ticket at once.
// Holders by plain Lock are not waited for: unlock before closing.
//
// With etcd out of reach it returns within 5 s of the end of those functions, with etcd's error; the lease then ends
// by itself, a TTL after its last renewal. A second Close waits for the first one and returns nil. It is safe for
// concurrent use and does not close the etcd client.
func (s *Session) Close() error {
	if s.closing.Err() != nil || !s.begin() {
		<-s.closed
		return nil
	}
	defer close(s.closed)
	s.mu.Lock()
	l := s.lease
	s.mu.Unlock()
	left := l.left()
	l.end(ErrClosed) // renewals stop here, so left is final
	s.awaitWork(left)

	limit, cancel := context.WithTimeout(s.back, closeLimit)
	s.mu.Lock()
	keys := l.keysLocked()
	s.mu.Unlock()
	err := s.revoke(limit, l, keys)
	cancel()
	s.mu.Lock()
	s.stopped = true // nothing is spawned from here on
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.streams.release(s.client)
	if err != nil {
		return fmt.Errorf("etcdlock: close: the lease %x ends by itself within %v: %w", l.id, l.ttl, err)
	}
	return nil
}

// begin marks the Session as closing; false if another Close did before.
func (s *Session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.shut(ErrClosed) // nobody's callback on this context takes mu
	return true
}

// awaitWork waits for the functions of Do and Run, at most for limit.
func (s *Session) awaitWork(limit time.Duration) {
	s.mu.Lock()
	var idle chan struct{}
	if s.work > 0 {
		idle = make(chan struct{})
		s.idle = idle
	}
	s.mu.Unlock()
	if idle == nil {
		return
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// workBegins and workEnds count the functions that Close waits for. Once Close has begun there are no more of them.
func (s *Session) workBegins() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.work++
	return true
}

func (s *Session) workEnds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.work--; s.work == 0 && s.idle != nil {
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

// current returns the newest lease, which may be over.
func (s *Session) current() *lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

// live returns a lease that can be relied on now, waiting for the next one if the last was lost.
func (s *Session) live(ctx context.Context) (*lease, error) {
	for {
		s.mu.Lock()
		l, next, trouble := s.lease, s.next, s.trouble
		s.mu.Unlock()
		if s.closing.Err() != nil {
			return nil, ErrClosed
		}
		if l.alive() {
			return l, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, overErr(ctx, trouble)
		case <-s.closing.Done():
		case <-s.client.Ctx().Done():
			return nil, errClientClosed
		}
	}
}
