package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// This file runs work under a hold: the work ends before the ticket is touched.

// Do takes the lock, runs fn and releases the lock: in that order, so that the work has ended before anyone else can
// begin. fn's context carries ctx's values and ends with ctx or with the hold, whichever is first; fn should return
// soon after. If the lock cannot be had, fn is not called and Do returns Lock's error.
//
// The error joins fn's with ErrLost if the hold had ended before fn returned, or with the error of a release that
// could not be confirmed. A panic or runtime.Goexit in fn releases the lock and goes on.
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	t, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer func() {
		rctx, cancel := releaseContext(ctx, t)
		defer cancel()
		err = errors.Join(err, m.unlockOnly(rctx, t))
	}()
	return t.work(ctx, fn)
}

// work runs fn under the hold. The Session's Close waits for it.
func (t *ticket) work(ctx context.Context, fn func(ctx context.Context) error) error {
	if !t.line.s.workBegins(t) {
		return t.line.s.over()
	}
	defer t.line.s.workEnds(t)
	work, stop := newWork(ctx, t.hold)
	defer stop()
	return fn(work)
}

// releaseContext is for a release that must happen although ctx may be over. The hold's deadline bounds it anyway.
func releaseContext(ctx context.Context, t *ticket) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(t.lease.left(), time.Second))
}

// Run campaigns with value, runs fn while this value leads, and steps down when fn returns: for a service that lives
// for months. fn's context carries ctx's values and ends with ctx or with the lead; fn should return soon after.
//
//   - fn returns while leading: Run resigns and returns fn's error.
//   - the lead is lost: fn's context ends, Run waits for fn to return, and campaigns again.
//   - ctx ends: fn's context ends, Run waits for fn, resigns and returns ctx.Err().
//   - the Session closes: ErrClosed. Other errors of Campaign are returned as they are.
//
// The ticket is deleted only after fn has returned. A panic or runtime.Goexit in fn resigns and goes on.
func (e *Election) Run(ctx context.Context, value string, fn func(ctx context.Context) error) error {
	for {
		t, err := e.campaign(ctx, value)
		if err != nil {
			return err
		}
		err, lost := e.lead(ctx, t, fn)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case e.s.closing.Err() != nil:
			return errors.Join(err, fmt.Errorf("etcdlock: run %q: %w", e.name, e.s.over()))
		case !lost:
			return err
		}
	}
}

// lead runs fn and steps down. The outcome of the release is of no interest once fn has ended under a lead that lasted:
// what is left of it, the background clears.
func (e *Election) lead(ctx context.Context, t *ticket, fn func(context.Context) error) (err error, lost bool) {
	defer func() {
		lost = t.hold.Err() != nil && !errors.Is(t.ended(), ErrNotHeld)
		rctx, cancel := releaseContext(ctx, t)
		defer cancel()
		if rerr := e.resignOnly(rctx, t); rerr != nil && !lost {
			lost = errors.Is(rerr, ErrLost)
			err = errors.Join(err, rerr)
		}
	}()
	return t.work(ctx, fn), false
}
