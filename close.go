package etcdlock

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// This file ends a Session: by Close, or because its client was closed.

// closeLimit bounds the requests of Close: what etcd has not confirmed by then, the lease's end does.
const closeLimit = 5 * time.Second

// Close gives everything back. Calls that wait return ErrClosed; every hold's Context ends with the cause ErrClosed;
// functions that run under Do or Run are waited for, until the deadlines of their holds at the latest (so Close
// called from inside such a function waits that long); then the lease is revoked, which removes every ticket at once.
// Holders by plain Lock are not waited for: unlock before closing.
//
// With etcd out of reach it returns within 5 s of the end of those functions, with etcd's error; the lease then ends
// by itself, a TTL after its last renewal. A lease that was lost already costs nothing. A second Close waits for the
// first one and returns nil. It is safe for concurrent use and does not close the etcd client.
//
// A client that is closed first ends the Session by itself, at once: holds and calls then end with ErrClientClosed, and
// nothing can be given back, so the locks are free when the lease has run out. Close returns ErrClientClosed then.
func (s *Session) Close() error {
	s.unhook()
	s.end(ErrClosed)
	<-s.closed
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.unrevoked
	s.unrevoked = nil
	return err
}

// end is the end of the Session, for one cause or the other. Only the first call does anything.
func (s *Session) end(cause error) {
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.shut(cause) // nobody's callback on this context takes mu
	l := s.lease
	s.mu.Unlock()
	defer close(s.closed)

	alive := l.alive()
	working, left := s.stillWorking(), l.left()
	l.end(cause) // renewals stop here, so left is final
	err := cause
	switch {
	case !alive:
		err = nil // keep has revoked it, or etcd is away and it ends by itself
	case cause == ErrClosed: //nolint:errorlint // this very value
		awaitWork(working, left)
		limit, cancel := context.WithTimeout(s.back, closeLimit)
		s.mu.Lock()
		keys := l.keysLocked()
		s.mu.Unlock()
		err = s.revoke(limit, l, keys)
		cancel()
	}
	s.mu.Lock()
	s.stopped = true // nothing is spawned from here on
	if err != nil {
		s.unrevoked = fmt.Errorf("etcdlock: close: the lease %x ends by itself within %v: %w", l.id, l.granted, err)
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	s.streams.release(s.client)
}

// over is why the Session is: ErrClosed or ErrClientClosed; nil while it is not.
func (s *Session) over() error { return context.Cause(s.closing) }

// stillWorking makes a channel that is closed when the functions of Do and Run which still have their holds have ended;
// nil if there are none. Nothing is given back that the others might need.
func (s *Session) stillWorking() (ended <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.working, func(t *ticket, _ struct{}) bool { return t.hold.Context.Err() != nil })
	if len(s.working) > 0 {
		s.idle = make(chan struct{})
	}
	return s.idle
}

// awaitWork waits for that, at most for limit.
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

// workBegins and workEnds keep the functions that Close waits for. Once Close has begun there are no more of them.
func (s *Session) workBegins(t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.working[t] = struct{}{}
	return true
}

func (s *Session) workEnds(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.working, t)
	if len(s.working) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}
