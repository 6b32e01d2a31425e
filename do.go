package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

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
	t.line.s.workBegins()
	defer t.line.s.workEnds()
	work, stop := newWork(ctx, t.hold)
	defer stop()
	return fn(work)
}

// releaseContext is for a release that must happen although ctx may be over. The hold's deadline bounds it anyway.
func releaseContext(ctx context.Context, t *ticket) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), max(t.lease.left(), time.Second))
}

// Locker returns the Mutex as a sync.Locker, for code that knows nothing of etcd and of losing a lock. Use it only
// where the work under it is fenced or may overlap after a loss.
//
// Lock blocks until the lock is held and retries whatever etcd refuses, with a log line each time; it panics for
// ErrClosed and ErrInvalidName alone. Unlock of a hold that was lost logs that and returns, as it does when etcd has
// not confirmed the release; unlocking what was never locked panics, as a sync.Mutex does.
func (m *Mutex) Locker() sync.Locker { return locker{m} }

type locker struct{ m *Mutex }

func (l locker) Lock() {
	for n := 0; ; n++ {
		err := l.m.Lock(context.Background())
		switch {
		case err == nil:
			return
		case errors.Is(err, ErrClosed), errors.Is(err, ErrInvalidName):
			panic(err)
		}
		l.log().Error("etcdlock: Lock failed, trying again", "name", l.m.name, "error", err)
		pause := min(50*time.Millisecond<<min(n, 6), 2*time.Second)
		sleep(l.m.s.closing, pause) // a Session that closes cuts it short
	}
}

func (l locker) Unlock() {
	err := l.m.Unlock(context.Background())
	switch {
	case err == nil:
	case errors.Is(err, ErrNotHeld):
		panic(err)
	default:
		l.log().Error("etcdlock: Unlock", "name", l.m.name, "error", err)
	}
}

func (l locker) log() *slog.Logger { return l.m.s.opts.log }
