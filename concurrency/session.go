package concurrency

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	v3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

const defaultSessionTTL = 60

// closeLimit bounds the request of Close for a lease that was lost: what etcd has not confirmed by then, the lease's end does.
const closeLimit = 5 * time.Second

// Session is a lease that is renewed until Orphan, Close, or its loss.
type Session struct {
	client *v3.Client
	opts   sessionOptions
	id     v3.LeaseID
	live   *etcdlock.Session // renews the lease and takes locks; without one if the lease was gone to begin with
	ask    *etcdlock.Session // without a lease: for questions, which outlive the session
	ctx    context.Context
	cancel context.CancelFunc
	unhook func() bool   // from the end of the context that WithContext gave
	taking chan struct{} // full while a lead that was resumed is taken up

	mu       sync.Mutex                    // guards what follows; a leaf
	orphaned bool                          // the lease is renewed no more, and may be by somebody else
	leads    map[string]*etcdlock.Election // by key: by which value the session leads, for ResumeElection
	held     map[string]int                // by key: how many values hold by it; after Orphan nobody else knows
	calling  map[string]int                // by name: how many calls want to hold, and may have a ticket in the queue
}

// NewSession gets a session with a lease of its own, or with that of WithLease, which it renews first. A given lease that is
// gone makes a session that is over, as in etcd's package.
func NewSession(client *v3.Client, opts ...SessionOption) (*Session, error) {
	s := &Session{
		client: client, taking: make(chan struct{}, 1),
		leads: make(map[string]*etcdlock.Election), held: make(map[string]int), calling: make(map[string]int),
	}
	s.opts = sessionOptions{client: client, ttl: defaultSessionTTL, ctx: client.Ctx()}
	for _, opt := range opts {
		opt(&s.opts)
	}
	log := etcdlock.WithLogger(logger(client))
	under := []etcdlock.Option{log}
	if s.id = s.opts.leaseID; s.id == v3.NoLease {
		resp, err := client.Grant(s.opts.ctx, int64(s.opts.ttl))
		if err != nil {
			return nil, err
		}
		s.id = resp.ID
		under = append(under, etcdlock.WithTTL(time.Duration(s.opts.ttl)*time.Second))
	}
	var err error
	if s.ask, err = etcdlock.NewSession(s.opts.ctx, client, log, etcdlock.WithoutLease()); err != nil {
		return nil, translated(s.opts.ctx, err)
	}
	s.live, err = etcdlock.NewSession(s.opts.ctx, client, append(under, etcdlock.WithLease(s.id))...)
	if errors.Is(err, etcdlock.ErrLeaseLost) && s.opts.leaseID != v3.NoLease {
		s.live, s.orphaned, err = s.ask, true, nil
	}
	if err != nil {
		return nil, translated(s.opts.ctx, err)
	}
	s.ctx, s.cancel = context.WithCancel(s.opts.ctx)
	context.AfterFunc(s.live.LeaseContext(), s.cancel)
	s.unhook = context.AfterFunc(s.opts.ctx, s.orphan)
	return s, nil
}

// Client is the etcd client that the session was made with.
func (s *Session) Client() *v3.Client { return s.client }

// Lease is the session's lease, which never changes.
func (s *Session) Lease() v3.LeaseID { return s.id }

// Ctx is over when the session is: orphaned, closed, or without its lease. That is before the lease has run out in etcd.
func (s *Session) Ctx() context.Context {
	if s.live.LeaseContext().Err() != nil { // asks the clock: a process that was stopped is told at once
		s.cancel()
	}
	return s.ctx
}

// Done is closed when Ctx is over.
func (s *Session) Done() <-chan struct{} { return s.Ctx().Done() }

// Orphan ends the renewals. What is held stays in etcd for as long as the lease lives; what waits is given up.
func (s *Session) Orphan() {
	s.unhook()
	s.orphan()
}

func (s *Session) orphan() {
	s.mu.Lock()
	s.orphaned = true
	s.mu.Unlock()
	s.cancel()
	_ = s.live.Orphan() // etcd's has no error to return: what waits may stay until the lease ends
}

// Close revokes the lease, and with it all that is on it. A lease that is gone already is no error.
func (s *Session) Close() error {
	s.unhook()
	s.cancel()
	if s.live.LeaseContext().Err() == nil {
		return s.live.Close()
	}
	closed := make(chan struct{})
	go func() { // beside the revocation, so that both together take no longer than one
		defer close(closed)
		_ = s.live.Close()
	}()
	defer func() { <-closed }()
	ctx, cancel := context.WithTimeout(s.opts.ctx, closeLimit)
	defer cancel()
	_, err := s.client.Revoke(ctx, s.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// on calls f with a Session of the library that can take and give back: the one that renews the lease; after Orphan, when
// somebody else does, one for this call alone, which renews the lease as long as the call lasts. own says which.
func (s *Session) on(ctx context.Context, f func(live *etcdlock.Session, own bool) error) error {
	if !s.isOrphaned() {
		return translated(ctx, f(s.live, true))
	}
	live, err := etcdlock.NewSession(ctx, s.client, etcdlock.WithLogger(logger(s.client)), etcdlock.WithLease(s.id))
	if err != nil {
		if errors.Is(err, etcdlock.ErrLeaseLost) {
			return rpctypes.ErrLeaseNotFound // as etcd says it for a request with such a lease
		}
		return translated(ctx, err)
	}
	defer func() {
		ended := make(chan struct{})
		go func() { // what is held stays; nothing waits any more
			defer close(ended)
			_ = live.Orphan() // within seconds, also in a partition
		}()
		select {
		case <-ended:
		case <-ctx.Done():
		}
	}()
	return translated(ctx, f(live, false))
}

func (s *Session) isOrphaned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.orphaned
}

// giveBack releases what a call that fails has got. Where the session was orphaned meanwhile, which keeps what is held, the key is
// deleted in the background, for as long as Close would try.
func (s *Session) giveBack(key string, rev int64, release func() error) {
	if !errors.Is(release(), etcdlock.ErrNoLease) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(s.client.Ctx(), closeLimit)
		defer cancel()
		for ctx.Err() == nil {
			_, err := s.client.Txn(ctx).If(v3.Compare(v3.ModRevision(key), "=", rev)).Then(v3.OpDelete(key)).Commit()
			if err == nil {
				return
			}
			pause, stop := context.WithTimeout(ctx, closeLimit/20)
			<-pause.Done()
			stop()
		}
	}()
}

// header is an answer of etcd's of now, and whether key is there, created at rev.
func (s *Session) header(ctx context.Context, key string, rev int64) (resp *v3.GetResponse, there bool, err error) {
	if resp, err = s.get(ctx, key); err != nil {
		return nil, false, err
	}
	return resp, len(resp.Kvs) > 0 && resp.Kvs[0].CreateRevision == rev, nil
}

// getLimit is the time of the first attempt of get, and each has twice that of the one before.
const getLimit = time.Second

// get reads a key. A member that is frozen answers nothing, and the client does not leave it: so each attempt has its time.
// After the first one two are sent at once, since of two in a row one meets another member.
func (s *Session) get(ctx context.Context, key string) (*v3.GetResponse, error) {
	type answer struct {
		resp *v3.GetResponse
		err  error
	}
	for limit, copies := getLimit, 1; ; limit, copies = 2*limit, 2 {
		attempt, cancel := context.WithTimeout(ctx, limit)
		answers := make(chan answer, copies)
		for range copies {
			go func() {
				resp, err := s.client.Get(attempt, key)
				answers <- answer{resp, err}
			}()
		}
		var a answer
		for range copies {
			if a = <-answers; a.err == nil {
				break
			}
		}
		late := attempt.Err() != nil && ctx.Err() == nil
		cancel()
		if a.err == nil || !late {
			return a.resp, a.err
		}
	}
}

type sessionOptions struct {
	client  *v3.Client
	ttl     int
	leaseID v3.LeaseID
	ctx     context.Context
}

// SessionOption configures a Session.
type SessionOption func(*sessionOptions)

// WithTTL is the time to live of the session's lease in seconds. One that is not above 0 leaves the default of 60 in force,
// with a warning in the client's log.
func WithTTL(ttl int) SessionOption {
	return func(so *sessionOptions) {
		if ttl <= 0 {
			so.client.GetLogger().Sugar().Warnw("WithTTL: the TTL should be above 0; it stays as it is", "ttl", so.ttl)
			return
		}
		so.ttl = ttl
	}
}

// WithLease uses a lease that exists; see etcdlock.WithLease. What is there already of the lease in a queue is taken up by
// the next Lock or Campaign for that queue: so a program can go on after a restart.
func WithLease(leaseID v3.LeaseID) SessionOption {
	return func(so *sessionOptions) { so.leaseID = leaseID }
}

// WithContext bounds NewSession and Close, and orphans the session when it ends.
func WithContext(ctx context.Context) SessionOption {
	return func(so *sessionOptions) { so.ctx = ctx }
}
