package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
	"github.com/etcdlock/etcdlock/internal/task"
)

// leases is the Session's lease: granted, renewed, lost and replaced, one after the other.
type leases struct {
	// These never change, once begin has set tickets.
	client  *rpc.Client
	tasks   *task.Group
	tickets *queue.Tickets
	ttl     time.Duration // to ask for
	early   time.Duration // how much earlier than it must each is given up
	given   bool          // by the caller (WithLease), and there will be no other
	log     *slog.Logger
	now     chan struct{} // asks for a renewal now
	hooks   *watching

	// mu guards what follows. It is a leaf: nothing is taken, asked or cancelled under it.
	mu      sync.Mutex
	lease   *queue.Lease  // the newest; may be over
	next    chan struct{} // closed with the next lease, or its refusal
	refused error         // what etcd refused the next lease with, for good
	lastErr error         // what the last renewal or grant failed with, nil after a success

	renewals, failures, replacements uint64 // acknowledged, attempts that failed, next leases
}

func newLeases(c *rpc.Client, tasks *task.Group, o options, hooks *watching) *leases {
	return &leases{
		client: c, tasks: tasks, ttl: o.ttl, early: o.margin, given: o.lease != clientv3.NoLease, log: o.log, hooks: hooks,
		now: make(chan struct{}, 1), next: make(chan struct{}),
	}
}

// begin sets the first lease.
func (ls *leases) begin(tickets *queue.Tickets, l *lease.Lease) {
	ls.tickets = tickets
	ls.lease = tickets.Use(l, ls.given)
}

// grant asks etcd for a lease, and tells how long that took. A grant whose answer is lost leaves a lease without keys,
// which ends by itself.
func grant(ctx context.Context, client *clientv3.Client, ttl, early time.Duration) (l *lease.Lease, took time.Duration, err error) {
	sent, began := lease.Now(), time.Now()
	resp, err := client.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return nil, 0, err
	}
	return lease.New(resp.ID, ttl, early, resp.TTL, sent), time.Since(began), nil
}

// firstGrant asks for the Session's first lease for as long as ctx allows, an attempt at a time, and says in the log why it
// waits: after about a second, and then ever more seldom.
func firstGrant(ctx context.Context, client *rpc.Client, o options) (*lease.Lease, error) {
	var pace rpc.Pace
	begin, quiet := time.Now(), time.Second
	var last error
	for n := 0; ; n++ {
		// Longer each time: the path may be slow. An answer that comes later than the TTL is of no use.
		actx, cancel := context.WithTimeout(ctx, min(2*time.Second<<min(n, 20), o.ttl))
		l, took, err := grant(actx, client.Client, o.ttl, o.margin)
		cancel()
		switch {
		case err == nil:
			client.Answered(took)
			return l, nil
		case ctx.Err() != nil:
			return nil, client.Over(ctx, last)
		case client.Closed():
			return nil, ErrClientClosed
		case !rpc.Transient(err):
			return nil, err
		}
		last = rpc.Unanswered(err)
		if waited := time.Since(begin); waited >= quiet {
			quiet = waited + min(waited, time.Minute)
			o.log.Warn("etcdlock: NewSession waits for etcd", "endpoints", client.Endpoints(), "waited", waited,
				"error", client.Why(last))
		}
		if !pace.Wait(ctx) {
			return nil, client.Over(ctx, last)
		}
	}
}

func (ls *leases) current() *queue.Lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.lease
}

// Live returns a lease that can be relied on now, waiting for the next one if the last was lost. What etcd refuses the
// next one with for good ends the wait.
func (ls *leases) Live(ctx context.Context) (*queue.Lease, error) {
	for {
		ls.mu.Lock()
		l, next, lastErr, refused := ls.lease, ls.next, ls.lastErr, ls.refused
		ls.mu.Unlock()
		switch {
		case ls.tasks.Closing().Err() != nil:
			return nil, context.Cause(ls.tasks.Closing())
		case l.Alive():
			return l, nil
		case refused != nil:
			return nil, fmt.Errorf("no lease granted: %w", refused)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil, ls.client.Over(ctx, lastErr)
		case <-ls.tasks.Closing().Done():
		}
	}
}

// LastErr is what the last renewal or grant failed with, nil after a success.
func (ls *leases) LastErr() error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.lastErr
}

// renewed takes it in that a renewal of l was acknowledged, or that an attempt at one has failed.
func (ls *leases) renewed(l *queue.Lease, took time.Duration, err error) {
	ls.mu.Lock()
	if ls.lastErr = err; err == nil {
		ls.renewals++
	} else {
		ls.failures++
	}
	ls.mu.Unlock()
	ls.hooks.renewed(l, took, err)
}

// CheckNow asks for a renewal now, which tells whether the lease is still there.
func (ls *leases) CheckNow() {
	select {
	case ls.now <- struct{}{}:
	default:
	}
}

// renewLoop runs as long as the Session: also while that waits for its holds to be released, except that a lease which is
// lost then is the last.
func (ls *leases) renewLoop() {
	for l := ls.current(); l != nil; l = ls.nextLease() {
		ls.renewUntilLost(l)
		if ls.given || !errors.Is(context.Cause(l.Context()), ErrLost) {
			return // the Session has ended it, or ends with it, see endLost
		}
		keys, holds := ls.tickets.Drop(l)
		names, more := queue.FirstOf(holds)
		ls.log.Warn("etcdlock: lease lost, with every hold under it", queue.Attr(l.Lease), "held", names, "and more", more,
			"last renewed", l.Age(), "last error", ls.client.Why(ls.LastErr()))
		ls.abandon(l, keys)
	}
}

// renewUntilLost renews l every third of its TTL until it is over. Nothing else is done between two renewals: what is done
// for the tickets is started here and runs beside them, however long it takes.
func (ls *leases) renewUntilLost(l *queue.Lease) {
	every := l.Span() / renewPart
	timer := time.NewTimer(l.Due(every)) // counted from the sending of the grant, however late its answer came
	defer timer.Stop()
	for l.Context().Err() == nil {
		select {
		case <-timer.C:
		case <-ls.now:
		case <-l.Context().Done():
			return
		}
		ls.tickets.StartChecks(l, false)
		ls.renew(l)
		timer.Reset(l.Due(every))
	}
}

// abandon revokes a lease that is over. That stops puts that are still under way: they fail for want of the lease. It also
// frees the locks of a lease that etcd has renewed without our knowing; but not before the margin has passed, a part of
// which is for holders that take a moment to stop.
func (ls *leases) abandon(l *queue.Lease, keys []string) {
	ls.tasks.Go(func() {
		if !rpc.Sleep(ls.tasks.Back(), l.Margin()) {
			return
		}
		ctx, cancel := context.WithTimeout(ls.tasks.Back(), l.TTL)
		defer cancel()
		if err := ls.tickets.Revoke(ctx, l.Lease, keys); err != nil {
			ls.log.Debug("etcdlock: revoking a lost lease", queue.Attr(l.Lease), "error", err)
		}
	})
}

// nextLease gets the next lease, however long it takes; nil when the Session is over.
func (ls *leases) nextLease() *queue.Lease {
	var pace rpc.Pace
	old := ls.current()
	for n := 0; ls.tasks.Closing().Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(ls.tasks.Back(), ls.client.AttemptTimeout(n))
		granted, took, err := grant(ctx, ls.client.Client, ls.ttl, ls.early)
		cancel()
		if err == nil {
			if l := ls.adopt(granted); l != nil {
				ls.client.Answered(took)
				ls.hooks.replaced(old, l)
				ls.log.Info("etcdlock: new lease", queue.Attr(granted), "ttl", l.TTL)
				return l
			}
			granted.End(context.Cause(ls.tasks.Closing()))
			ctx, cancel := context.WithTimeout(ls.tasks.Back(), closeLimit)
			_ = ls.tickets.Revoke(ctx, granted, nil) // without keys; it ends by itself
			cancel()
			return nil
		}
		level := slog.LevelDebug
		if ls.refuse(err) {
			level = slog.LevelError
		}
		ls.log.Log(ls.tasks.Back(), level, "etcdlock: no lease granted", "error", ls.client.Why(rpc.Unanswered(err)))
		pace.Wait(ls.tasks.Closing())
	}
	return nil
}

// adopt makes l the Session's lease; nil if it came while the Session was ending with the one before.
func (ls *leases) adopt(granted *lease.Lease) *queue.Lease {
	l := ls.tickets.Use(granted, false)
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.tasks.Closing().Err() != nil {
		return nil
	}
	ls.lease, ls.lastErr, ls.refused = l, nil, nil
	ls.replacements++
	ls.wakeLocked()
	return l
}

// refuse takes it in that no lease was granted. An error that no retry will mend is told to everybody who waits for the
// lease, now and until there is one; refuse reports whether that is news.
func (ls *leases) refuse(err error) (news bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.lastErr = rpc.Unanswered(err)
	if rpc.Transient(err) {
		ls.refused = nil
		return false
	}
	news = ls.refused == nil
	ls.refused = err
	ls.wakeLocked()
	return news
}

func (ls *leases) wakeLocked() {
	close(ls.next)
	ls.next = make(chan struct{})
}
