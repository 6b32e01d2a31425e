// Package certmagiclock has the processes of a fleet share the work of getting certificates, for certmagic and Caddy.
package certmagiclock

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/etcdlock/etcdlock"
)

// Storage is any certmagic.Storage, with its locks in etcd.
type Storage struct {
	certmagic.Storage
	Session *etcdlock.Session
	Prefix  string // of the names of the locks

	held sync.Map // of *etcdlock.Mutex by name
}

// Lock waits for its turn.
func (s *Storage) Lock(ctx context.Context, name string) error {
	m := etcdlock.NewMutex(s.Session, s.Prefix+name)
	if err := m.Lock(ctx); err != nil {
		return err
	}
	s.held.Store(name, m)
	return nil
}

// TryLock takes the lock if it is free.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	m := etcdlock.NewMutex(s.Session, s.Prefix+name)
	if err := m.TryLock(ctx); errors.Is(err, etcdlock.ErrLocked) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	s.held.Store(name, m)
	return true, nil
}

// Unlock returns etcdlock.ErrLost if somebody else may have worked at the same time.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	if m, ok := s.held.LoadAndDelete(name); ok {
		return m.(*etcdlock.Mutex).Unlock(ctx)
	}
	return etcdlock.ErrNotHeld
}

// RenewLockLease tells certmagic whether the lock is still held: what renews it is the Session.
func (s *Storage) RenewLockLease(_ context.Context, name string, _ time.Duration) error {
	if m, ok := s.held.Load(name); ok {
		return context.Cause(m.(*etcdlock.Mutex).Context())
	}
	return etcdlock.ErrNotHeld
}
