package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file renews a lease. A renewal is a linearizable read and a keepalive. The read is what makes S safe to count
// from: a leader that was frozen and does not know yet that it was deposed answers a keepalive, but no linearizable
// read. Which of the two is served first does not matter, so they are sent at the same time, and each is sent again
// by itself. Any two answers make a renewal,
//
//   - counted from S, the moment before the earlier of the two was sent,
//   - if the keepalive's raft term is not below the read's: then every later leader was elected after S, and gives the
//     lease its full TTL anew,
//   - if both are here before the deadline in force now.
//
// The same holds for the news that there is no such lease: a leader from before its grant that has just woken may never
// have heard of it.

// The times of a renewal, as parts of the TTL. Begun at a third, it has until nineteen twentieths.
const (
	renewPart = 3  // after S the next renewal begins
	hedgePart = 10 // without an answer, a request is sent again: the member may be frozen
	pausePart = 30 // from a request that failed to the next: who refuses at once is not asked in a tight loop
)

// answer is what came of one request.
type answer struct {
	to   *errand
	sent lease.Instant
	took time.Duration
	term uint64 // the raft term in its header
	ttl  int64  // of a keepalive, in seconds: 0 if there is no such lease
	err  error
}

// errand is one of the two requests of a renewal, with its repetitions. None is given up before the renewal is over:
// where the path has become slow, the first may be the one whose answer is in time.
type errand struct {
	name  string
	ask   func(ctx context.Context, a *answer)
	next  lease.Instant // not before
	out   []*answer     // still to come, by their sending
	reply *answer       // the latest that counts
}

// due is when the errand is to be sent (again), if wanted: a tenth of the TTL after the last time. But no more than two
// are out that may well be answered yet, which takes up to usual: more would help nobody where etcd has too much to do.
func (e *errand) due(hedge, usual time.Duration) (at lease.Instant, wanted bool) {
	at = e.next
	if n := len(e.out); n > 0 {
		at = max(at, e.out[n-1].sent.Add(hedge))
		if n > 1 {
			at = max(at, e.out[n-2].sent.Add(usual))
		}
	}
	return at, e.reply == nil
}

// renewal is one renewal of l under way. It belongs to renewLoop's goroutine; each request has one of its own.
type renewal struct {
	ls        *leases
	l         *queue.Lease
	began     time.Time
	read, ack errand
	answers   chan *answer
}

// renew renews l. It returns when that is done or l is over.
func (ls *leases) renew(l *queue.Lease) {
	ctx, cancel := context.WithCancel(l.Context()) // ends what is still out, too
	defer cancel()
	r := &renewal{ls: ls, l: l, began: time.Now(), answers: make(chan *answer)}
	r.read = errand{name: "read", ask: r.askRead, next: lease.Now()}
	r.ack = errand{name: "keepalive", ask: r.askKeepAlive, next: lease.Now()}
	again := time.NewTicker(l.Span() / renewPart)
	defer again.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case a := <-r.answers:
			if r.take(a) {
				return
			}
		case <-again.C:
			ls.tickets.StartChecks(l, true) // this renewal's read has been answered long ago, or not yet
			continue
		case <-l.Context().Done():
			return
		case <-timer.C:
		}
		timer.Reset(r.send(ctx))
	}
}

// send sends what is due, and returns the time until more is.
func (r *renewal) send(ctx context.Context) (wait time.Duration) {
	span := r.l.Span()
	hedge, usual := span/hedgePart, max(span/5, min(2*r.ls.client.RoundTrip(), span/2))
	wait = span
	for _, e := range []*errand{&r.read, &r.ack} {
		at, wanted := e.due(hedge, usual)
		if wanted && at <= lease.Now() {
			if n := len(e.out); n > 0 {
				r.ls.renewed(r.l, lease.Now().Sub(e.out[n-1].sent), rpc.ErrUnanswered)
			}
			if r.start(ctx, e); len(e.out) > 2 {
				r.start(ctx, e) // of two at once, one meets another member than the one that answers none, see rpc.Retry
			}
			at, wanted = e.due(hedge, usual)
		}
		if wanted {
			wait = min(wait, max(at.Sub(lease.Now()), 0))
		}
	}
	return wait
}

// start sends e once.
func (r *renewal) start(ctx context.Context, e *errand) {
	a := &answer{to: e, sent: lease.Now()}
	began := time.Now()
	e.out = append(e.out, a)
	r.ls.tasks.Go(func() {
		e.ask(ctx, a)
		a.took = time.Since(began)
		if a.err == nil {
			select {
			case r.answers <- a:
			case <-ctx.Done():
			}
			return
		}
		select {
		case r.answers <- a:
			r.log(a) // here, so that a log which blocks keeps no renewal waiting
		case <-ctx.Done():
		}
	})
}

func (r *renewal) log(a *answer) {
	level := slog.LevelDebug
	if !rpc.Transient(a.err) {
		level = slog.LevelError // no later attempt will fare better without an operator
	}
	r.ls.log.Log(r.ls.tasks.Back(), level, "etcdlock: renewal failed", queue.Attr(r.l.Lease), "left", r.l.Left(),
		"error", fmt.Errorf("%s: %w", a.to.name, a.err))
}

func (r *renewal) askRead(ctx context.Context, a *answer) {
	hdr, err := r.ls.tickets.ReadForRenewal(ctx, r.l)
	a.term, a.err = hdr.GetRaftTerm(), err
}

// askKeepAlive sends one keepalive, on a fresh stream: a long-lived one sticks to a member that is frozen.
func (r *renewal) askKeepAlive(ctx context.Context, a *answer) {
	resp, err := r.ls.client.KeepAliveOnce(clientv3.WithRequireLeader(ctx), r.l.ID)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) && resp != nil {
		err = nil // an answer like any other, see take
	}
	if a.err = err; err == nil {
		a.term, a.ttl = resp.GetRaftTerm(), max(resp.TTL, 0)
	}
}

// take judges an answer together with the latest to the other request. It reports whether the renewal is over.
func (r *renewal) take(a *answer) (over bool) {
	e, ls := a.to, r.ls
	e.out = slices.DeleteFunc(e.out, func(o *answer) bool { return o == a })
	if a.err != nil {
		ls.renewed(r.l, a.took, rpc.Unanswered(a.err))
		e.next = max(e.next, a.sent.Add(r.pause()))
		return false
	}
	e.reply = a
	read, ack := r.read.reply, r.ack.reply
	switch {
	case read == nil || ack == nil:
		return false
	case ack.term < read.term:
		// Of a member that does not know yet who leads. Another keepalive may go to one that does.
		r.ack.reply, r.ack.next = nil, ack.sent.Add(r.pause())
		ls.renewed(r.l, ack.took, fmt.Errorf("renewal: acknowledged in term %d, older than %d of its read", ack.term, read.term))
		return false
	case ack.ttl == 0:
		r.l.NotFound()
		return true
	}
	if r.l.Extend(min(read.sent, ack.sent), ack.ttl) {
		ls.client.Answered(max(read.took, ack.took))
		ls.renewed(r.l, time.Since(r.began), nil)
	}
	return true
}

func (r *renewal) pause() time.Duration { return max(r.l.Span()/pausePart, 20*time.Millisecond) }
