// Package gooselock has one process of a fleet migrate the database, for goose: on any database, also on those that have no locks.
package gooselock

import (
	"context"
	"database/sql"

	"github.com/etcdlock/etcdlock"
)

// Locker is a lock.SessionLocker and a lock.Locker of goose.
type Locker struct{ m *etcdlock.Mutex }

// New returns a Locker for one database, which has that name in etcd.
func New(s *etcdlock.Session, name string) Locker { return Locker{etcdlock.NewMutex(s, name)} }

// Lock waits for its turn.
func (l Locker) Lock(ctx context.Context, _ *sql.DB) error { return l.m.Lock(ctx) }

// Unlock returns etcdlock.ErrLost if somebody else may have migrated at the same time.
func (l Locker) Unlock(ctx context.Context, _ *sql.DB) error {
	return l.m.Unlock(context.WithoutCancel(ctx))
}

// SessionLock is Lock.
func (l Locker) SessionLock(ctx context.Context, _ *sql.Conn) error { return l.Lock(ctx, nil) }

// SessionUnlock is Unlock.
func (l Locker) SessionUnlock(ctx context.Context, _ *sql.Conn) error { return l.Unlock(ctx, nil) }
