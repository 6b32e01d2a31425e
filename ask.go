package etcdlock

import (
	"context"
	"time"
)

// This file paces requests: how long an attempt may take, and when the next one follows.

// ask runs one kind of request until it is answered: f gets a context with the time limit of one attempt. A failed
// attempt is followed by the next, later and with more patience, until ctx ends or the error is final.
func (s *Session) ask(ctx context.Context, f func(context.Context) error) error {
	var last error
	for n := 0; ; n++ {
		actx, cancel := context.WithTimeout(ctx, s.patience(n))
		err := f(actx)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return overErr(ctx, last)
		case s.client.Ctx().Err() != nil:
			return ErrClientClosed
		case !transient(err):
			return err
		}
		last = unanswered(err)
		if !sleep(ctx, min(20*time.Millisecond<<min(n, 6), time.Second)) {
			return overErr(ctx, last)
		}
	}
}

// askOnce makes a request once: it is for a caller that would rather have the error.
func (s *Session) askOnce(ctx context.Context, f func(context.Context) error) error {
	actx, cancel := context.WithTimeout(ctx, s.patience(4))
	defer cancel()
	switch err := f(actx); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case s.client.Ctx().Err() != nil:
		return ErrClientClosed
	default:
		return unanswered(err)
	}
}

// patience is the time limit of the nth attempt of a request: long enough for a slow path, short enough to leave a
// frozen member for another one early.
func (s *Session) patience(n int) time.Duration {
	least := max(4*time.Duration(s.rtt.Load()), 500*time.Millisecond)
	return min(least<<min(n, 4), max(5*time.Second, least))
}

// sleep waits for d; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// late reports whether an answer took so long that the etcd client may have sent the request more than once: it does so
// by itself, and says nothing of it, when something on the way answers "deadline exceeded" in etcd's place.
func (s *Session) late(took time.Duration) bool {
	return took > max(4*time.Duration(s.rtt.Load()), 100*time.Millisecond)
}
