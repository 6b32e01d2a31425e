package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// marginPart is the part of the TTL that a lease gives up early: 1/20 covers a local clock that runs up to 5% slower
// than etcd's, and the time that a busy machine takes to tell the holder. Real clocks differ by far less (NTP slews at
// most 0.05%); the rest is for the scheduler.
const marginPart = 20

// lease is one etcd lease, from its grant to its end, together with the moment until which it can be relied on:
//
//	deadline = S + min(TTL asked, TTL granted) − margin
//
// S is the moment before the request was sent whose effect the deadline rests on: the grant, and later the
// linearizable read that precedes each renewal. Never the moment an answer arrived: a slow answer must not stretch
// the hold. A lease that is over stays over.
type lease struct {
	id    clientv3.LeaseID
	asked time.Duration
	ttl   time.Duration // as granted

	ctx    context.Context // over, with the cause, when the lease is; the holds' contexts hang on it
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards what follows; never held while cancelling
	from     instant    // S
	deadline instant
	cause    error // why it is over, nil while it is not
	timer    *time.Timer

	// Guarded by the Session's mu.
	tickets map[string]*ticket // every ticket that may be in etcd under this lease, by key
	suspect bool               // a put may still arrive late: look for strays until the lease ends
	top     uint64             // the highest n of a ticket
	burnt   uint64             // no n up to this one is used again
}

// grant asks etcd for a lease. A grant whose answer is lost leaves a lease without keys, which ends by itself.
func grant(ctx context.Context, client *clientv3.Client, ttl time.Duration) (*lease, error) {
	sent := now()
	resp, err := client.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return nil, err
	}
	l := &lease{id: resp.ID, asked: ttl, ttl: seconds(resp.TTL), tickets: make(map[string]*ticket)}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from, l.deadline = sent, sent.add(l.trust(l.ttl))
	l.timer = time.AfterFunc(l.deadline.sub(now()), l.expire)
	return l, nil
}

// seconds converts a TTL of etcd's without overflow: the largest that etcd takes does not fit a Duration.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
}

// trust is how long the lease can be relied on, counted from S, when etcd has said granted.
func (l *lease) trust(granted time.Duration) time.Duration {
	ttl := min(l.asked, granted)
	return ttl - ttl/marginPart
}

// renew makes one attempt: read, a linearizable read, and then one keepalive. The read is what makes S safe to count
// from: a leader that was frozen and does not know yet that it was deposed answers a keepalive, but no linearizable
// read. The acknowledgement must not come from an older term than the read did; then every later leader was elected
// after S and promotes the lease to its full TTL.
func (l *lease) renew(ctx context.Context, client *clientv3.Client, limit time.Duration,
	read func(context.Context) (*pb.ResponseHeader, error),
) error {
	sent := now()
	rctx, cancel := context.WithTimeout(ctx, limit)
	hdr, err := read(rctx)
	cancel()
	if err != nil {
		return fmt.Errorf("read before renewal: %w", err)
	}
	// A context of its own and a fresh stream for each attempt: KeepAliveOnce retries in a tight loop while the
	// server is away, and a long-lived stream sticks to a member that is frozen. The second attempt goes to another
	// member: with two of them and one frozen, the client's round robin would else read from the well one and send
	// the keepalive to the other, for ever.
	var ack *clientv3.LeaseKeepAliveResponse
	for range 2 {
		kctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), limit)
		ack, err = client.KeepAliveOnce(kctx, l.id)
		cancel()
		if err == nil || !errors.Is(unanswered(err), errUnanswered) {
			break
		}
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		l.end(ErrLost)
		return err
	case err != nil:
		return fmt.Errorf("renewal: %w", err)
	case ack.TTL <= 0:
		l.end(ErrLost)
		return rpctypes.ErrLeaseNotFound
	case ack.GetRaftTerm() < hdr.GetRaftTerm():
		return fmt.Errorf("renewal: acknowledged in term %d, older than %d of the read before it",
			ack.GetRaftTerm(), hdr.GetRaftTerm())
	}
	if !l.extend(sent, seconds(ack.TTL)) {
		return fmt.Errorf("renewal: acknowledged too late: %w", ErrLost)
	}
	return nil
}

// extend moves the deadline, unless it has passed: etcd may have decided on the lease's end by then, and a late
// acknowledgement does not undo that.
func (l *lease) extend(sent instant, granted time.Duration) bool {
	if !l.alive() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return false
	}
	l.from, l.deadline = sent, sent.add(l.trust(granted))
	l.timer.Reset(l.deadline.sub(now()))
	return true
}

// alive asks the clock, not the timer: a process that was stopped learns the truth on its first question.
func (l *lease) alive() bool {
	l.mu.Lock()
	if l.cause == nil && now() < l.deadline {
		l.mu.Unlock()
		return true
	}
	l.mu.Unlock()
	// Also when another goroutine has ended it just now: cancelling again waits until that one is done, so that a
	// context asked next is over.
	l.end(ErrLost)
	return false
}

// end is final; the first cause stays.
func (l *lease) end(cause error) {
	l.mu.Lock()
	if l.cause == nil {
		l.cause = cause
		l.timer.Stop()
	}
	cause = l.cause
	l.mu.Unlock()
	l.cancel(cause)
}

// expire runs when the timer fires, which an extension may have overtaken.
func (l *lease) expire() {
	if l.alive() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer.Reset(max(l.deadline.sub(now()), 1))
	}
}

// bound returns ctx, ended early by the end of the lease, for requests made on the way to a hold under it. Whoever
// waits long does without, for memory's sake.
func (l *lease) bound(ctx context.Context) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(l.ctx, func() { cancel(errRequeue) })
	return bounded, func() { unhook(); cancel(nil) }
}

// span is the TTL that counts here: etcd may grant more than was asked, and the deadline takes the smaller.
func (l *lease) span() time.Duration { return min(l.asked, l.ttl) }

// due is the time until every has passed since S.
func (l *lease) due(every time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.from.add(every).sub(now()), 0)
}

// left is the time until the deadline, at least 0.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.deadline.sub(now()), 0)
}
