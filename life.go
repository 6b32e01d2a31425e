package etcdlock

import (
	"context"
	"sync"
	"time"
)

// This file has the moment until which a lease can be relied on. It knows nothing of etcd.

// marginPart is the part of the TTL that a lease gives up early: 1/20 covers a local clock that runs up to 5% slower
// than etcd's, and the time that a busy machine takes to tell the holder. Real clocks differ by far less (NTP slews at
// most 0.05%); the rest is for the scheduler.
const marginPart = 20

// life is how long the holder may believe in a lease: from its grant to its end, which is at
//
//	deadline = S + min(TTL asked, TTL granted) − margin
//
// S is the moment before the requests were sent whose effect the deadline rests on: the grant, and later the two of
// each renewal (see renew.go). Never the moment an answer arrived: a slow answer must not stretch the hold. What is over
// stays over.
type life struct {
	asked   time.Duration
	granted time.Duration

	ctx    context.Context // over, with the cause, when the life is; the holds' contexts hang on it
	cancel context.CancelCauseFunc

	mu       sync.Mutex // guards what follows; never held while cancelling
	from     instant    // S
	deadline instant
	cause    error // why it is over, nil while it is not
	timer    *time.Timer
}

// begin starts a life that was asked for at sent.
func (l *life) begin(sent instant, asked, granted time.Duration) {
	l.asked, l.granted = asked, granted
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from, l.deadline = sent, sent.add(l.trust(granted))
	l.timer = time.AfterFunc(l.deadline.sub(now()), l.expire)
}

// trust is how long the lease can be relied on, counted from S, when etcd has said granted.
func (l *life) trust(granted time.Duration) time.Duration {
	ttl := min(l.asked, granted)
	return ttl - ttl/marginPart
}

// extend moves the deadline to what follows from a later S, unless it has passed: etcd may have decided on the lease's
// end by then, and a late acknowledgement does not undo that.
func (l *life) extend(sent instant, granted time.Duration) bool {
	if !l.alive() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		return false
	}
	if sent > l.from {
		l.from, l.deadline = sent, sent.add(l.trust(granted))
		l.timer.Reset(l.deadline.sub(now()))
	}
	return true
}

// alive asks the clock, not the timer: a process that was stopped learns the truth on its first question.
func (l *life) alive() bool {
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
func (l *life) end(cause error) {
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
func (l *life) expire() {
	if l.alive() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timer.Reset(max(l.deadline.sub(now()), 1))
	}
}

// span is the TTL that counts here: etcd may grant more than was asked, and the deadline takes the smaller.
func (l *life) span() time.Duration { return min(l.asked, l.granted) }

// due is the time until every has passed since S.
func (l *life) due(every time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.from.add(every).sub(now()), 0)
}

// left is the time until the deadline, at least 0.
func (l *life) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.deadline.sub(now()), 0)
}
