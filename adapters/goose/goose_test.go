package gooselock_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/pressly/goose/v3/lock/locktesting"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/etcdlock/etcdlock"
	gooselock "github.com/etcdlock/etcdlock/adapters/goose"
	"github.com/etcdlock/etcdlock/locktest"
)

var migrations = fstest.MapFS{
	"1_users.sql": {Data: []byte("-- +goose Up\nCREATE TABLE users (id INTEGER);\n")},
	"2_name.sql":  {Data: []byte("-- +goose Up\nALTER TABLE users ADD COLUMN name TEXT;\n")},
}

// open is one process's connection to the database.
func open(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// These are goose's own tests for lockers, which it exports. Each provider is a process of its own, but for the database file.
func TestTheTestsOfGooseForSessionLockers(t *testing.T) {
	etcd, file := locktest.New(t), filepath.Join(t.TempDir(), "db")
	locktesting.TestProviderLocking(t, func(t *testing.T) *goose.Provider {
		p, err := goose.NewProvider(goose.DialectSQLite3, open(t, file), migrations,
			goose.WithSessionLocker(gooselock.New(etcd.Session(), "/migrate/db")))
		require.NoError(t, err)
		return p
	})
}

func TestTheTestsOfGooseForLockers(t *testing.T) {
	etcd, file := locktest.New(t), filepath.Join(t.TempDir(), "db")
	locktesting.TestProviderLocking(t, func(t *testing.T) *goose.Provider {
		p, err := goose.NewProvider(goose.DialectSQLite3, open(t, file), migrations,
			goose.WithLocker(gooselock.New(etcd.Session(), "/migrate/db")))
		require.NoError(t, err)
		return p
	})
}

func TestTheTestsOfGooseForConcurrentLocking(t *testing.T) {
	etcd := locktest.New(t)
	locktesting.TestConcurrentLocking(t, open(t, filepath.Join(t.TempDir(), "db")), func(*testing.T) lock.Locker {
		return gooselock.New(etcd.Session(), "/migrate/db")
	}, time.Second)
}

// goose gives a Locker no way to stop a migration. It tells that one may have run beside another.
func TestALossIsToldByGoose(t *testing.T) {
	etcd := locktest.New(t)
	s := etcd.Session()
	p, err := goose.NewProvider(goose.DialectSQLite3, open(t, filepath.Join(t.TempDir(), "db")), migrations,
		goose.WithLocker(losing{gooselock.New(s, "/migrate/db"), etcd}))
	require.NoError(t, err)
	_, err = p.Up(t.Context())
	require.ErrorIs(t, err, etcdlock.ErrLost)
}

// losing loses its lock while migrations run.
type losing struct {
	gooselock.Locker
	etcd *locktest.Etcd
}

func (l losing) Unlock(ctx context.Context, db *sql.DB) error {
	l.etcd.Lose("/migrate/db")
	return l.Locker.Unlock(ctx, db)
}
