package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file ends a Session. However it comes to that, end does it, and in one order: whoever waits returns, the
// contexts of holds end, work is awaited, the lease is given back, and then what runs in the background ends.

// Shutdown ends the Session without taking a hold from anybody, for as long as ctx allows. As with http.Server, calls that
// wait or come later return ErrClosed, and what goes on may go on: holds are renewed, and Verify, Proclaim, Unlock and
// Resign work, until every hold has been released, by Lock as well as by Do, Campaign and Run; then the lease is revoked.
// It ends nobody's work: cancel the contexts of Do and Run yourself. A hold that is lost meanwhile is not waited for;
// the names that LockAll keeps when one is lost are.
//
// When ctx ends first, Shutdown returns at once, and its error matches ctx.Err() and names what was held. The Session
// then ends in the background as by Close, and a call of Close waits for that. Close, called meanwhile, ends the Session
// at once, and Shutdown returns ErrClosed; ErrClientClosed if it was the end of the client. Another Shutdown waits as the
// first one does; of a Session that is over it returns nil. It is safe for concurrent use.
func (s *Session) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errors.New("etcdlock: shutdown: nil context: pass one that bounds how long to wait for holds to be released")
	}
	s.tasks.Shut(ErrClosed)
	s.endAsks(ErrClosed)
	l := s.leases.current() // the last: adopt sets no other from now on
	var err error
	if l.Alive() { // else nothing is held
		err = s.tickets.AwaitReleased(ctx, l)
	}
	_, holds := s.tickets.List(l)
	s.unhook()
	s.end(ErrClosed)
	if !l.Alive() && s.leases.given { // what it has lost is deleted, but is not waited for longer than by Close
		defer time.AfterFunc(l.Margin(), s.hurryUp).Stop()
	}
	switch {
	case errors.Is(err, ErrLost): // the holders have been told; and nothing is left
		err = nil
	case err != nil && ctx.Err() != nil && len(holds) > 0:
		names, more := queue.FirstOf(holds)
		return fmt.Errorf("etcdlock: shutdown: %w; still held: %q and %d more", err, names, more)
	}
	select {
	case <-s.closed:
	default:
		select {
		case <-s.closed:
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return fmt.Errorf("etcdlock: shutdown: all is released, but etcd has not confirmed it: %w", err)
		}
	}
	if last := s.outcome(); err == nil {
		err = last
	}
	if err != nil {
		return fmt.Errorf("etcdlock: shutdown: %w", err)
	}
	return nil
}

// Close gives everything back. Calls that wait return ErrClosed; every hold's Context ends with the cause ErrClosed;
// functions that run under Do or Run are waited for, until the deadlines of their holds at the latest, and WithMargin's
// time more (so Close called from inside such a function waits that long); then the lease is revoked, which removes every
// ticket at once. Holders by plain Lock are not waited for: unlock before closing, or use Shutdown.
//
// With etcd out of reach it returns within 5 s of the end of those functions, with etcd's error; the lease then ends
// by itself, a TTL after its last renewal. A lease that was lost already costs nothing. A second Close waits for the
// first one and returns nil. It is safe for concurrent use and does not close the etcd client.
//
// A client that is closed first ends the Session by itself, at once: holds and calls then end with ErrClientClosed, and
// nothing can be given back, so the locks are free when the lease has run out. Close returns ErrClientClosed then.
func (s *Session) Close() error {
	defer s.endAsks(ErrClosed) // of one that has no lease
	return s.finish("close", ErrClosed)
}

// Orphan ends the Session and leaves what is held by Lock and Campaign in etcd: renewals stop, the holds' Contexts end with
// the cause ErrNoLease, and their tickets stay for as long as the lease lives, a TTL at most unless somebody renews it. It
// is for a holder whose place another process takes up, by Resume. Once Orphan has returned, no function of Do or Run runs:
// they are waited for as in Close, and what they held is released. Tickets that wait are deleted.
//
// Leader, Observe, Holder and Waiters go on. All else returns ErrNoLease, Unlock and Resign too: what stays is not this
// Session's any more. With etcd out of reach Orphan returns within 5 s of the end of those functions, and with an error if
// tickets may have stayed that wait. After Close it does nothing, and Close after it ends the questions and revokes nothing.
func (s *Session) Orphan() error { return s.finish("orphan", ErrNoLease) }

func (s *Session) finish(verb string, cause error) error {
	s.unhook()
	s.hurryUp()
	s.end(cause)
	<-s.closed
	if err := s.outcome(); err != nil {
		return fmt.Errorf("etcdlock: %s: %w", verb, err)
	}
	return nil
}

// outcome is why the lease could not be given back, for the first who asks.
func (s *Session) outcome() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.unrevoked
	s.unrevoked = nil
	return err
}

// end is the end of the Session, for one cause or the other: of its holds at once, and of the rest in the background, which
// closes s.closed. Only the first call does anything.
func (s *Session) end(cause error) {
	if !s.ended.CompareAndSwap(false, true) {
		return
	}
	s.tasks.Shut(cause)
	if cause != ErrNoLease && cause != ErrLeaseLost { //nolint:errorlint // these very values
		s.endAsks(cause)
	}
	l := s.leases.current() // the last: adopt sets no other from now on
	alive := l.Alive()
	working, left := s.tasks.Working(alive), l.Left()
	l.End(cause) // renewals stop here, so left is final
	s.tickets.EndHolds(l)
	go func() {
		defer close(s.closed)
		err := cause
		switch {
		case s.leases.given && !alive:
			err = nil
			s.endLost(l, working)
		case !alive:
			err = nil // it was abandoned, or etcd is away and it ends by itself
		case cause == ErrClosed, cause == ErrNoLease: //nolint:errorlint // these very values
			awaitWork(working, left+s.opts.margin)
			limit, cancel := context.WithTimeout(s.tasks.Back(), closeLimit)
			if keys, _ := s.tickets.List(l); cause == ErrClosed { //nolint:errorlint // as above
				err = s.tickets.Revoke(limit, l.Lease, keys)
			} else {
				err = s.tickets.Clear(limit, l, true)
			}
			cancel()
		}
		if err != nil {
			s.mu.Lock()
			s.unrevoked = fmt.Errorf("the lease %x ends by itself within %v: %w", l.ID, l.TTL, err)
			s.mu.Unlock()
		}
		s.tasks.Stop()
		s.lines.Drain(lastWords) // whoever logs has ended
		s.watching.end()
		s.client.Release()
	}()
}

// awaitWork waits for the functions of Do and Run, at most for limit.
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
