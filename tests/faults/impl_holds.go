//go:build unix

package main

import (
	"context"
	"sync"

	"github.com/etcdlock/etcdlock"
)

// ourHold is a lock whose acquisitions return a Hold: the last of them is what it holds.
type ourHold struct {
	take, try func(ctx context.Context) (*etcdlock.Hold, error)
	calls     map[string]func(context.Context) error

	mu sync.Mutex
	h  *etcdlock.Hold
}

// reader is the read side of an RWMutex.
func reader(s *etcdlock.Session, name string) lock {
	m := etcdlock.NewRWMutex(s, name)
	return &ourHold{take: m.RLock, try: m.TryRLock, calls: map[string]func(context.Context) error{
		"Holders": func(ctx context.Context) error { _, err := m.Holders(ctx); return err },
		"Waiters": func(ctx context.Context) error { _, err := m.Waiters(ctx); return err },
	}}
}

// permit is one of a Semaphore's two: Mutexes of the name take both.
func permit(s *etcdlock.Session, name string) lock {
	m := etcdlock.NewSemaphore(s, name, 2)
	l := &ourHold{take: m.Acquire, try: m.TryAcquire}
	l.calls = map[string]func(context.Context) error{
		"Holders": func(ctx context.Context) error { _, err := m.Holders(ctx); return err },
		"Waiters": func(ctx context.Context) error { _, err := m.Waiters(ctx); return err },
		"Slot":    func(ctx context.Context) error { _, _, err := l.held().Slot(ctx); return err },
	}
	return l
}

func (l *ourHold) of(ctx context.Context, take func(context.Context) (*etcdlock.Hold, error)) error {
	h, err := take(ctx)
	if err == nil {
		l.mu.Lock()
		l.h = h
		l.mu.Unlock()
	}
	return err
}

func (l *ourHold) held() *etcdlock.Hold {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.h
}

func (l *ourHold) Acquire(ctx context.Context) error { return l.of(ctx, l.take) }
func (l *ourHold) Try(ctx context.Context) error     { return l.of(ctx, l.try) }
func (l *ourHold) Release(ctx context.Context) error { return l.held().Release(ctx) }
func (l *ourHold) Done() <-chan struct{}             { return l.held().Context().Done() }
func (l *ourHold) Held() bool                        { return l.held().Context().Err() == nil }
func (l *ourHold) Key() string                       { return l.held().Key() }

// Calls are the further calls that ask etcd.
func (l *ourHold) Calls() map[string]func(context.Context) error {
	calls := map[string]func(context.Context) error{"Verify": l.held().Verify}
	for name, call := range l.calls {
		calls[name] = call
	}
	return calls
}
