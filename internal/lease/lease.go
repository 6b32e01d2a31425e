// Package lease knows until when a lease can be relied on. It is a leaf: it asks nothing of etcd and imports nothing of
// ours. What etcd said comes in as numbers, and what follows from it goes out as contexts that end in time.
package lease

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrLost is the cause of a lease, and of the holds under it, that ended before they were given back.
var ErrLost = errors.New("etcdlock: hold lost")

// marginPart is the part of the TTL that a lease gives up early: 1/20 covers a local clock that runs up to 5% slower
// than etcd's, and the time that a busy machine takes to tell the holder. Real clocks differ by far less (NTP slews at
// most 0.05%); the rest is for the scheduler.
const marginPart = 20

// Lease is one etcd lease, from its grant to its end, together with the moment until which it can be relied on:
//
//	deadline = S + min(TTL asked, TTL granted) − TTL/20 − early
//
// S is a moment before the requests were sent whose effect the deadline rests on: the grant, and later the two of each
// renewal. Never the moment an answer arrived: a slow answer must not stretch a hold. A lease that is over stays over.
type Lease struct {
	// These never change.
	ID  clientv3.LeaseID
	TTL time.Duration // as granted

	asked  time.Duration
	early  time.Duration // how much earlier than it must it is given up
	ctx    context.Context
	cancel context.CancelCauseFunc

	ended  atomic.Int64 // the Instant at which it was over, once it is
	byEtcd atomic.Bool  // it ended because etcd said so, not by its deadline

	// mu guards what follows. It is taken under no other, nothing is taken under it, and no context is cancelled.
	mu       sync.Mutex
	from     Instant // S
	deadline Instant
	cause    error // why it is over, nil while it is not
	timer    *time.Timer
}

// New returns a lease that was granted for ttl seconds. The request, for asked, was sent no earlier than sent. It is given
// up early by as much as it says.
func New(id clientv3.LeaseID, asked, early time.Duration, ttl int64, sent Instant) *Lease {
	l := &Lease{ID: id, asked: asked, early: early, TTL: Seconds(ttl)}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from, l.deadline = sent, sent.Add(l.trust(l.TTL))
	l.timer = time.AfterFunc(l.deadline.Sub(Now()), l.expire)
	return l
}

// Seconds converts a TTL of etcd's without overflow: the largest that etcd takes does not fit a Duration.
func Seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
}

// Trusted is how much of a time by etcd's clock can be relied on by ours.
func Trusted(d time.Duration) time.Duration { return d - d/marginPart }

// trust is how long the lease can be relied on, counted from S, when etcd has said granted.
func (l *Lease) trust(granted time.Duration) time.Duration {
	return Trusted(min(l.asked, granted)) - l.early
}

// Context is over, with the cause, when the lease is. It does not ask the clock: Alive does.
func (l *Lease) Context() context.Context { return l.ctx }

// Extend takes in a renewal that etcd acknowledged with a TTL of ttl seconds; sent is its S. It moves the deadline to what
// follows from a later S, unless it has passed: etcd may have decided on the lease's end by then, and a late
// acknowledgement does not undo that.
func (l *Lease) Extend(sent Instant, ttl int64) bool {
	if !l.Alive() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return false
	}
	if sent > l.from {
		l.from, l.deadline = sent, sent.Add(l.trust(Seconds(ttl)))
		l.timer.Reset(l.deadline.Sub(Now()))
	}
	return true
}

// Alive asks the clock, not the timer: a process that was stopped learns the truth on its first question.
func (l *Lease) Alive() bool {
	l.mu.Lock()
	if l.cause == nil && Now() < l.deadline {
		l.mu.Unlock()
		return true
	}
	l.mu.Unlock()
	// Also when another goroutine has ended it just now: cancelling again waits until that one is done, so that a
	// context asked next is over.
	l.End(ErrLost)
	return false
}

// End is final; the first cause stays.
func (l *Lease) End(cause error) {
	l.mu.Lock()
	if l.cause == nil {
		l.cause = cause
		l.ended.Store(int64(min(Now(), l.deadline)))
		l.timer.Stop()
	}
	cause = l.cause
	l.mu.Unlock()
	l.cancel(cause)
}

// NotFound ends the lease because etcd says that there is no such lease.
func (l *Lease) NotFound() {
	if l.Alive() {
		l.byEtcd.Store(true)
	}
	l.End(ErrLost)
}

// Ended tells of a lease that is over when it was, which is its deadline however late anybody noticed, and whether etcd
// said so. It takes no mutex and asks no clock.
func (l *Lease) Ended() (at Instant, byEtcd bool) { return Instant(l.ended.Load()), l.byEtcd.Load() }

// expire runs when the timer fires, which an extension may have overtaken.
func (l *Lease) expire() {
	if l.Alive() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer.Reset(max(l.deadline.Sub(Now()), 1))
	}
}

// Span is the TTL that counts here: etcd may grant more than was asked, and the deadline takes the smaller.
func (l *Lease) Span() time.Duration { return min(l.asked, l.TTL) }

// Margin is how long before etcd's own end of it the lease is given up.
func (l *Lease) Margin() time.Duration { return l.Span()/marginPart + l.early }

// Due is the time until every has passed since S, at least 0.
func (l *Lease) Due(every time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.from.Add(every).Sub(Now()), 0)
}

// Age is the time since S.
func (l *Lease) Age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Now().Sub(l.from)
}

// Left is the time until the deadline, at least 0.
func (l *Lease) Left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.deadline.Sub(Now()), 0)
}
