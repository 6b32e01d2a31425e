package memetcd

import (
	"context"
	"runtime"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file has the seam for faults: what becomes of a request on its way to the cluster and back.

// Kind is what a request asks for.
type Kind string

// The kinds of requests.
const (
	Range     Kind = "range"
	Put       Kind = "put"
	Delete    Kind = "delete"
	Txn       Kind = "txn"
	Compact   Kind = "compact"
	Grant     Kind = "grant"
	Revoke    Kind = "revoke"
	KeepAlive Kind = "keepalive"
	TTL       Kind = "ttl" // also the list of leases
	Members   Kind = "members"
	Watch     Kind = "watch" // the creation of one watch
)

// Request is what a judge sees.
type Request struct {
	Client int      // the client's number, from 1
	Member int      // the member's, from 0
	Kind   Kind     //
	Write  bool     // whether it goes through the log: a put, a deletion, a transaction with one, anything about leases but a keepalive
	Keys   []string // the first keys of its operations; for leases none
	Body   any      // the protocol buffer
}

// Verdict is what becomes of a request. The zero Verdict: it arrives, and is answered, at once.
//
// What was sent goes on although its sender has left: a request that is late, or comes again, takes effect when it
// arrives.
type Verdict struct {
	// Refuse answers with this error, after Delay; nothing is done. For a watch it is the reason in the answer.
	Refuse error
	// Lost: it never arrives.
	Lost bool
	// Delay is how long it takes to arrive.
	Delay time.Duration
	// Hold, if not nil, keeps it under way until it is closed.
	Hold <-chan struct{}
	// AnswerLost: it takes effect, and its sender never hears of it. On a stream of watches, no answer after this one
	// comes either.
	AnswerLost bool
	// AnswerDelay is how long the answer takes. On a stream of watches it is that of every later answer, too.
	AnswerDelay time.Duration
	// AnswerError takes the answer's place: somebody in between has lost patience.
	AnswerError error
	// Again sends copies, which arrive that much after the first one.
	Again []time.Duration
	// AnswerAgain: what the sender hears is the answer to the last copy.
	AnswerAgain bool
	// Hollow, of a keepalive: a leader that was deposed, and does not know, acknowledges it in the term before.
	Hollow bool
	// Unheard, of a keepalive: the answer is of a leader that never heard of the lease.
	Unheard bool
	// TTL, if not 0, is what a grant gives, or what a keepalive reports.
	TTL int64
	// Term, if not 0, is the raft term in the answer.
	Term uint64
}

var (
	errAway   = status.Error(codes.Unavailable, "connection refused")
	errClosed = status.Error(codes.Canceled, "grpc: the client connection is closing")
)

// closingPause is how long the real client goes on trying on a connection that was closed, before it says so.
const closingPause = 2500 * time.Millisecond

// conn is one client's connection, and implements what is under the client's API.
type conn struct {
	s      *Server
	id     int
	client context.Context // the client's own
	next   int             // the member that is next, guarded by the server's mu
}

// pickLocked picks the member for a request or a stream: one after the other, as the real client does.
func (c *conn) pickLocked() int {
	member := c.next
	c.next = (c.next + 1) % len(c.s.members)
	return member
}

// judge picks the member, and asks what becomes of a request.
func (c *conn) judge(r Request) (Request, Verdict) {
	runtime.Gosched() // the order of goroutines that run at one moment of fake time is the scheduler's
	c.s.mu.Lock()
	r.Member = c.pickLocked()
	c.s.mu.Unlock()
	return c.judgeAt(r)
}

// judgeAt asks what becomes of a request to its member.
func (c *conn) judgeAt(r Request) (Request, Verdict) {
	c.s.mu.Lock()
	r.Client = c.id
	judge := c.s.judge
	c.s.mu.Unlock()
	var v Verdict
	if judge != nil {
		c.s.judging.Lock()
		defer c.s.judging.Unlock()
		v = judge(r)
	}
	return r, v
}

// result is an answer.
type result[T any] struct {
	value T
	err   error
}

// send takes one request there and back. effect runs with the server's mu and returns the answer with its revision, for
// which a linearizable one waits until its member has got there.
func send[T any](ctx context.Context, c *conn, r Request, local bool, effect func(member int) (T, error)) (T, error) {
	return sendVerdict(ctx, c, r, local, func(member int, _ Verdict) (T, error) { return effect(member) })
}

// sendVerdict is send for an effect that depends on the verdict.
func sendVerdict[T any](
	ctx context.Context, c *conn, r Request, local bool, effect func(member int, v Verdict) (T, error),
) (T, error) {
	var none T
	if c.client.Err() != nil {
		c.s.wait(ctx, closingPause)
		return none, errClosed
	}
	r, v := c.judge(r)
	answer := make(chan result[T], 1)
	arrive := func() (res result[T]) {
		c.s.awake(r.Member)
		c.s.do(func() { res.value, res.err = effect(r.Member, v) })
		if h, ok := any(res.value).(interface{ GetHeader() *pb.ResponseHeader }); ok && res.err == nil && v.Term != 0 {
			h.GetHeader().RaftTerm = v.Term
		}
		if !local {
			c.s.caughtUp(r.Member)
		}
		return res
	}
	way := func() {
		bg := context.Background() // it goes on when the caller has left
		if v.Hold != nil {
			select {
			case <-v.Hold:
			case <-c.s.over:
				return
			}
		}
		if v.Lost || !c.s.wait(bg, v.Delay) {
			return
		}
		if v.Refuse != nil {
			answer <- result[T]{err: v.Refuse}
			return
		}
		res := arrive()
		for i, d := range v.Again {
			last := v.AnswerAgain && i == len(v.Again)-1
			copied := func() {
				if !c.s.wait(bg, d) {
					return
				}
				if again := arrive(); last {
					answer <- again
				}
			}
			go copied()
		}
		if v.AnswerLost || v.AnswerAgain && len(v.Again) > 0 || !c.s.wait(bg, v.AnswerDelay) {
			return
		}
		if v.AnswerError != nil {
			res = result[T]{err: v.AnswerError}
		}
		answer <- res
	}
	if !v.Lost || v.Hold != nil {
		go way()
	}
	select {
	case res := <-answer:
		runtime.Gosched()
		if res.err != nil {
			return none, res.err
		}
		return res.value, nil
	case <-ctx.Done():
		return none, status.FromContextError(ctx.Err()).Err()
	case <-c.client.Done():
		c.s.wait(ctx, closingPause)
		return none, errClosed
	}
}
