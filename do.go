package etcdlock

import (
	"context"
	"errors"
	"time"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file runs work under a hold: the work ends before the ticket is touched.

// Do takes the lock, runs fn and releases the lock: in that order, so that the work has ended before anyone else can
// begin. fn's context carries ctx's values and ends with ctx or with the hold, whichever is first; fn should return
// soon after. If the lock cannot be had, fn is not called and Do returns Lock's error.
//
// The error joins fn's with ErrLost if the hold had ended before fn returned, or with ErrUnconfirmed if etcd has not
// confirmed the release. Once ctx is over and fn has returned, Do waits a second for that at most; the release goes on
// in the background. Look for ErrLost before you filter out context.Canceled: an fn whose hold was lost returns that,
// too. A panic or runtime.Goexit in fn releases the lock and goes on. An fn that ends by UnlockAfter leaves the lock taken;
// Do then has nothing left to release, and returns fn's error. Its own ctx ends with the hold: give UnlockAfter
// context.WithoutCancel(ctx).
func (m *Mutex) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := m.needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := m.lock(ctx)
	if err != nil {
		return err
	}
	return m.under(ctx, h, fn)
}

// TryDo is Do if the lock is free and nobody waits for it. Else fn is not called, and TryDo says at once who has the lock,
// with TryLock's error.
func (m *Mutex) TryDo(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := m.needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := m.tryLock(ctx)
	if err != nil {
		return err
	}
	return m.under(ctx, h, fn)
}

// under runs fn under the hold and releases it.
func (m *Mutex) under(ctx context.Context, h *Hold, fn func(context.Context) error) (err error) {
	defer func() { err = errors.Join(err, m.releaseSoonAfter(ctx, h)) }()
	return m.work(ctx, h.ticket, fn)
}

// afterwards is how long Do and Run wait for the release once the caller's context is over.
const afterwards = time.Second

// releaseSoonAfter releases only, and nothing else, although ctx may be over: it is what ends the waiting, a little later.
func (h *handle) releaseSoonAfter(ctx context.Context, only *Hold) error {
	return soonAfter(ctx, func(ctx context.Context) error { return h.release(ctx, only, 0) })
}

// Run campaigns with value, runs fn while this value leads, and steps down when fn returns: for a service that lives
// for months. fn's context carries ctx's values and ends with ctx or with the lead; fn should return soon after.
//
//   - fn returns while leading: Run resigns and returns fn's error, joined with ErrUnconfirmed if etcd has not confirmed
//     that. Resign from outside ends fn's context, and Run returns fn's error as well.
//   - the lead is lost: fn's context ends, Run waits for fn to return, logs fn's error, and campaigns again.
//   - ctx ends: fn's context ends, Run waits for fn, resigns, and returns fn's error joined with ctx.Err(), and with
//     ErrLost if the lead was lost as well. Look for ErrLost before you filter out context.Canceled.
//   - the Session closes: ErrClosed, joined with fn's error. Other errors of Campaign are returned as they are.
//
// The ticket is deleted only after fn has returned. Once ctx is over and fn has returned, Run waits a second for the
// confirmation at most. A panic or runtime.Goexit in fn resigns and goes on.
func (e *Election) Run(ctx context.Context, value string, fn func(ctx context.Context) error) error {
	if err := e.needs(ctx, "run", fn); err != nil {
		return err
	}
	for {
		h, err := e.campaign(ctx, e.of().take, func() (*queue.Ticket, error) { return e.acquire(ctx, e.orIdentity(value)) })
		if err != nil {
			return err
		}
		err, lost := e.lead(ctx, h, fn)
		switch {
		case ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case !lost:
			return err // a Session that waits for this one has no part in it
		case e.s.over() != nil:
			return errors.Join(err, e.failed("run", e.s.over()))
		}
		e.s.opts.log.Warn("etcdlock: lead lost, campaigning again", "name", e.shown(), "token", h.Token(), "error", err)
	}
}

// lead runs fn and steps down. Its error joins fn's with that of the release, unless fn has resigned by itself.
func (e *Election) lead(ctx context.Context, h *Hold, fn func(context.Context) error) (err error, lost bool) {
	defer func() {
		if rerr := e.releaseSoonAfter(ctx, h); !errors.Is(rerr, ErrNotLeader) {
			lost = errors.Is(rerr, ErrLost)
			err = errors.Join(err, rerr)
		}
	}()
	return e.work(ctx, h.ticket, fn), false
}
