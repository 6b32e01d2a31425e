// Package rpc asks etcd on behalf of one Session: it knows how long an attempt may take, when the next one follows, which
// errors are final, how much fits in one request, and on which stream watches are told in time. It knows nothing of locks.
package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Client is the etcd client of one Session. Everything in it is read and written without a mutex: the client and the
// streams never change, the rest is atomic and each stands for itself.
type Client struct {
	*clientv3.Client
	streams *streams     // which watch stream is in use
	rtt     atomic.Int64 // of the last answered renewal or grant, in ns
	fewer   atomic.Int64 // operations in one Txn than etcd takes by default, see PartSize
}

// New returns a Client of the caller's client, which stays the caller's. Release it once.
func New(c *clientv3.Client) *Client { return &Client{Client: c, streams: streamsOf(c)} }

// Release gives back the Client's part in what the Sessions of one etcd client share.
func (c *Client) Release() { c.streams.release(c.Client) }

// Answered says how long a round trip took, without the time that the machine slept: attempts that follow have their
// limits by it.
func (c *Client) Answered(took time.Duration) { c.rtt.Store(int64(took)) }

// RoundTrip is how long the last known one took.
func (c *Client) RoundTrip() time.Duration { return time.Duration(c.rtt.Load()) }

// Closed reports whether the etcd client was closed: nothing can be asked any more.
func (c *Client) Closed() bool { return c.Ctx().Err() != nil }

// Retry asks until it is answered: ask sends one request, and gets a context with the time limit of one attempt. A failed
// attempt is followed by the next, later and with more time, until ctx ends or the error is final. After one without an
// answer two are asked at once, see twice.
func Retry[T any](ctx context.Context, c *Client, ask func(context.Context) (T, error)) (T, error) {
	return retry(ctx, c, true, ask)
}

// RetryAlone is Retry with one request at a time: for one whose own copy may be told that somebody else was first.
func RetryAlone[T any](ctx context.Context, c *Client, ask func(context.Context) (T, error)) (T, error) {
	return retry(ctx, c, false, ask)
}

func retry[T any](ctx context.Context, c *Client, two bool, ask func(context.Context) (T, error)) (T, error) {
	var pace Pace
	var none T
	var last error
	for n := 0; ; n++ {
		var answer T
		var err error
		actx, cancel := context.WithTimeout(ctx, c.AttemptTimeout(n))
		if two && errors.Is(last, ErrUnanswered) {
			answer, err = twice(actx, func(ctx context.Context, _ int) (T, error) { return ask(ctx) }, func(*T) {})
		} else {
			answer, err = ask(actx)
		}
		cancel()
		switch {
		case err == nil:
			return answer, nil
		case ctx.Err() != nil:
			return none, c.Over(ctx, last)
		case c.Closed():
			return none, ErrClientClosed
		case !Transient(err):
			return none, err
		}
		last = Unanswered(err)
		if !pace.Wait(ctx) {
			return none, c.Over(ctx, last)
		}
	}
}

// lag is by how much a server may be ahead of us in seeing that our deadline has passed.
const lag = 100 * time.Millisecond

// twice asks two at once and takes the first answer; the other, should there be one, is dropped. The etcd client goes
// round the members with its requests, and others come in between. So a request that is sent again and again can meet the
// member that is frozen again and again, where the others come at a regular pace for ever. Of two that are sent together,
// one meets another member. Both have ended when twice returns.
func twice[T any](ctx context.Context, ask func(ctx context.Context, nth int) (T, error), drop func(*T)) (T, error) {
	type reply struct {
		answer T
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	replies := make(chan reply, 2)
	for nth := range 2 {
		go func() {
			answer, err := ask(ctx, nth)
			replies <- reply{answer, err}
		}()
	}
	first := <-replies
	if first.err != nil && Transient(first.err) {
		first = <-replies
		return first.answer, first.err
	}
	cancel()
	if second := <-replies; second.err == nil {
		drop(&second.answer)
	}
	return first.answer, first.err
}

// Once makes one attempt: it is for a caller that would rather have the error.
func (c *Client) Once(ctx context.Context, f func(context.Context) error) error {
	actx, cancel := context.WithTimeout(ctx, c.AttemptTimeout(4))
	defer cancel()
	err := f(actx)
	if end, ok := ctx.Deadline(); ok && timedOut(err) && time.Until(end) < lag {
		<-ctx.Done() // the server has this deadline too, and was the first to see it pass
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case c.Closed():
		return ErrClientClosed
	default:
		return c.Why(Unanswered(err))
	}
}

// AttemptTimeout is the time limit of the nth attempt of a request, from 0: long enough for a slow path, short enough to
// leave a frozen member for another one early. It is 10 s at most: one slow answer must not make all later calls patient.
func (c *Client) AttemptTimeout(n int) time.Duration {
	least := min(max(4*c.RoundTrip(), 500*time.Millisecond), 10*time.Second)
	return min(least<<min(n, 4), max(5*time.Second, least))
}

// Late reports whether an answer took so long that it may stand for two arrivals. The etcd client repeats some requests by
// itself, and says nothing of it, when something on the way answers "deadline exceeded" in etcd's place. So the first copy of
// a put may still come, and what a deletion did not find, its first copy may have deleted. Nobody on the way is known to lose
// patience within a quarter of a second, which a disk that is busy takes now and then.
func (c *Client) Late(took time.Duration) bool {
	return took > max(4*c.RoundTrip(), 250*time.Millisecond)
}

// ReadAt asks op, a read or a Txn of reads, as of revision at, 0 for now. A revision that was compacted away, or that a
// member which lags does not have yet, is replaced by now. So it tells what the answers are as of, and only from that may
// anything be concluded: a key that is not there now may have been there then.
func (c *Client) ReadAt(ctx context.Context, at int64, op func(at int64) clientv3.Op) (answers []*pb.RangeResponse, rev int64, err error) {
	for {
		resp, err := Retry(ctx, c, func(ctx context.Context) (clientv3.OpResponse, error) { return c.Do(ctx, op(at)) })
		switch {
		case at > 0 && (errors.Is(err, rpctypes.ErrFutureRev) || errors.Is(err, rpctypes.ErrCompacted)):
			at = 0
			continue
		case err != nil:
			return nil, 0, err
		}
		rev = at
		if txn := resp.Txn(); txn != nil {
			for _, r := range txn.Responses {
				answers = append(answers, r.GetResponseRange())
			}
			if at == 0 {
				rev = txn.Header.Revision
			}
		} else {
			answers = append(answers, (*pb.RangeResponse)(resp.Get()))
			if at == 0 {
				rev = resp.Get().Header.Revision
			}
		}
		return answers, rev, nil
	}
}

// AsOf are the options of a read as of revision at, 0 for now. The past does not change: any member that has it may
// answer.
func AsOf(at int64) []clientv3.OpOption {
	if at == 0 {
		return nil
	}
	return []clientv3.OpOption{clientv3.WithRev(at), clientv3.WithSerializable()}
}

// Pace spaces out attempts of whatever etcd may answer a little later: each pause is twice the one before. The zero value is
// ready. (CONTRIBUTING.md tells what has a pace of its own.)
type Pace struct{ n int }

const (
	paceLeast = 20 * time.Millisecond // who refuses at once is not asked in a tight loop
	paceMost  = time.Second           // so long may somebody wait in vain once etcd is back
)

// Wait pauses; false if ctx ended first.
func (p *Pace) Wait(ctx context.Context) bool {
	pause := min(paceLeast<<min(p.n, 20), paceMost)
	p.n++
	return Sleep(ctx, pause)
}

// Reset says that something has succeeded: the next pause is the least again.
func (p *Pace) Reset() { p.n = 0 }

// Sleep waits for d; false if ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
