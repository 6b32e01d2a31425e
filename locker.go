package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// Locker returns the Mutex as a sync.Locker, for code that knows nothing of etcd and of losing a lock. Use it only
// where the work under it is fenced or may overlap after a loss.
//
// Lock blocks until the lock is held and retries whatever etcd refuses, with a log line each time; it panics when
// the Session is over (ErrClosed, ErrClientClosed, ErrNoLease, ErrLeaseLost), and for a Mutex without a name or a
// Session. Unlock of a hold that was lost logs that and returns, as it does when etcd has not confirmed the release;
// unlocking what was never locked panics, as a sync.Mutex does.
func (m *Mutex) Locker() sync.Locker { return locker{m} }

type locker struct{ m *Mutex }

func (l locker) Lock() {
	if err := l.m.begin(context.Background(), l.m.of().take); err != nil {
		panic(err)
	}
	var pace rpc.Pace
	for {
		err := l.m.Lock(context.Background())
		switch {
		case err == nil:
			return
		case l.m.s.over() != nil:
			panic(err)
		}
		l.log().Error("etcdlock: Lock failed, trying again", "name", l.m.shown(), "error", err)
		pace.Wait(l.m.s.tasks.Closing()) // a Session that closes cuts it short
	}
}

func (l locker) Unlock() {
	err := l.m.Unlock(context.Background())
	switch {
	case err == nil:
	case errors.Is(err, ErrNotHeld):
		panic(err)
	default:
		l.log().Error("etcdlock: Unlock", "name", l.m.shown(), "error", err)
	}
}

func (l locker) log() *slog.Logger { return l.m.s.opts.log }
