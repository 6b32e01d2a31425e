// Package migratelock has one process of a fleet migrate the database, for golang-migrate: on any database, also on those that
// have no locks.
package migratelock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/golang-migrate/migrate/v4/database"
)

// patience is how long etcd may take for an answer: the host gives no context.
const patience = 10 * time.Second

// Driver is any database.Driver, with its lock in etcd.
type Driver struct {
	database.Driver
	m *etcdlock.Mutex
}

// New returns a Driver for one database, which has that name in etcd.
func New(d database.Driver, s *etcdlock.Session, name string) *Driver {
	return &Driver{d, etcdlock.NewMutex(s, name)}
}

// Lock takes the lock if it is free. If it is not, migrate calls again, until its LockTimeout is over.
func (d *Driver) Lock() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := d.m.TryLock(ctx)
	if errors.Is(err, etcdlock.ErrLocked) {
		return fmt.Errorf("%w: %w", database.ErrLocked, err)
	}
	return err
}

// Run refuses to begin with a migration that is no longer protected.
func (d *Driver) Run(migration io.Reader) error {
	if lost := context.Cause(d.m.Context()); errors.Is(lost, etcdlock.ErrLost) {
		return lost
	}
	return d.Driver.Run(migration)
}

// Unlock returns etcdlock.ErrLost if somebody else may have migrated at the same time.
func (d *Driver) Unlock() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return d.m.Unlock(ctx)
}
