package migratelock_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	dbstub "github.com/golang-migrate/migrate/v4/database/stub"
	hosttests "github.com/golang-migrate/migrate/v4/database/testing"
	"github.com/golang-migrate/migrate/v4/source"
	"github.com/golang-migrate/migrate/v4/source/stub"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	migratelock "github.com/etcdlock/etcdlock/adapters/migrate"
	"github.com/etcdlock/etcdlock/locktest"
)

// nothing is a database without a lock of its own.
type nothing struct{ database.Driver }

func (nothing) Lock() error   { return nil }
func (nothing) Unlock() error { return nil }

func db(t *testing.T, etcd *locktest.Etcd) database.Driver {
	t.Helper()
	d, err := new(dbstub.Stub).Open("")
	require.NoError(t, err)
	return migratelock.New(nothing{d}, etcd.Session(), "/migrate/db")
}

// These two are the tests that all drivers of migrate have to pass, and that it exports.
func TestTheTestsOfMigrateForDrivers(t *testing.T) {
	hosttests.Test(t, db(t, locktest.New(t)), []byte("CREATE TABLE users"))
}

func TestTheTestsOfMigrateForMigrations(t *testing.T) {
	from, err := new(stub.Stub).Open("")
	require.NoError(t, err)
	all := source.NewMigrations()
	all.Append(&source.Migration{Version: 1, Direction: source.Up, Identifier: "CREATE 1"})
	all.Append(&source.Migration{Version: 1, Direction: source.Down, Identifier: "DROP 1"})
	from.(*stub.Stub).Migrations = all
	m, err := migrate.NewWithInstance("stub", from, "", db(t, locktest.New(t)))
	require.NoError(t, err)
	hosttests.TestMigrate(t, m)
}

func TestOneProcessMigrates(t *testing.T) {
	etcd := locktest.New(t)
	one, two := db(t, etcd), db(t, etcd)
	require.NoError(t, one.Lock())
	require.ErrorIs(t, two.Lock(), database.ErrLocked)
	require.NoError(t, one.Unlock())
	require.NoError(t, two.Lock())
	require.NoError(t, two.Unlock())
}

func TestNoMigrationBeginsAfterALoss(t *testing.T) {
	etcd := locktest.New(t)
	d := db(t, etcd)
	require.NoError(t, d.Lock())
	run := func() error { return d.Run(bytes.NewReader([]byte("CREATE TABLE users"))) }
	require.NoError(t, run())
	etcd.ExpireLeases()
	require.Eventually(t, func() bool { return run() != nil }, 20*time.Second, time.Millisecond)
	require.ErrorIs(t, run(), etcdlock.ErrLost)
	require.ErrorIs(t, d.Unlock(), etcdlock.ErrLost)
}
