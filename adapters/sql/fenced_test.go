// Package sql_test is the code of the guide on fenced writers, which needs a database.
package sql_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

const schema = `
CREATE TABLE fence (name TEXT PRIMARY KEY, token BIGINT NOT NULL);
CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
INSERT INTO account VALUES (4711, 100);`

var errStale = errors.New("somebody else has held the lock since")

// fenced does work in a transaction that commits only if nobody with a greater token has been here.
func fenced(ctx context.Context, db *sql.DB, name string, token int64, work func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // which does nothing after Commit
	raised, err := tx.ExecContext(ctx, `
		INSERT INTO fence (name, token) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET token = excluded.token WHERE fence.token <= excluded.token`, name, token)
	if err != nil {
		return err
	}
	if n, err := raised.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return errStale
	}
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// withdraw takes an amount from an account, under the account's lock.
func withdraw(ctx context.Context, s *etcdlock.Session, db *sql.DB, amount int64) error {
	const name = "/accounts/4711"
	m := etcdlock.NewMutex(s, name)
	return m.Do(ctx, func(ctx context.Context) error {
		return fenced(ctx, db, name, m.Token(), func(tx *sql.Tx) error {
			var balance int64
			if err := tx.QueryRowContext(ctx, `SELECT balance FROM account WHERE id = 4711`).Scan(&balance); err != nil {
				return err
			}
			if balance < amount {
				return errors.New("not enough")
			}
			_, err := tx.ExecContext(ctx, `UPDATE account SET balance = $1 WHERE id = 4711`, balance-amount)
			return err
		})
	})
}

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(20000)&_txlock=immediate")
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	_, err = db.Exec(schema)
	require.NoError(t, err)
	return db
}

func balance(t *testing.T, db *sql.DB) (n int64) {
	t.Helper()
	require.NoError(t, db.QueryRow(`SELECT balance FROM account WHERE id = 4711`).Scan(&n))
	return n
}

func TestWithdrawalsFollowOneAnother(t *testing.T) {
	etcd, db := locktest.New(t), open(t)
	ended := make(chan error)
	for range 4 {
		s := etcd.Session()
		go func() { ended <- withdraw(t.Context(), s, db, 30) }()
	}
	failed := 0
	for range 4 {
		if err := <-ended; err != nil {
			require.ErrorContains(t, err, "not enough")
			failed++
		}
	}
	require.Equal(t, 1, failed)
	require.EqualValues(t, 10, balance(t, db))
}

func TestAWriterThatWakesTooLateIsRefused(t *testing.T) {
	etcd, db := locktest.New(t), open(t)
	late := etcdlock.NewMutex(etcd.Session(), "/accounts/4711")
	require.NoError(t, late.Lock(t.Context()))
	token := late.Token()
	write := func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE account SET balance = 1000000 WHERE id = 4711`)
		return err
	}
	require.NoError(t, fenced(t.Context(), db, "/accounts/4711", token, func(*sql.Tx) error { return nil }))

	etcd.ExpireLeases() // it was stopped for too long, and does not know yet
	require.NoError(t, withdraw(t.Context(), etcd.Session(), db, 30))
	require.ErrorIs(t, fenced(t.Context(), db, "/accounts/4711", token, write), errStale)
	require.EqualValues(t, 70, balance(t, db))
}

func TestNothingOfARefusedOrFailedTransactionStays(t *testing.T) {
	db, failure := open(t), errors.New("failed")
	require.ErrorIs(t, fenced(t.Context(), db, "a", 7, func(*sql.Tx) error { return failure }), failure)
	require.NoError(t, fenced(t.Context(), db, "a", 6, func(*sql.Tx) error { return nil }), "7 was rolled back")
	require.NoError(t, fenced(t.Context(), db, "a", 8, func(*sql.Tx) error { return nil }))
	require.NoError(t, fenced(t.Context(), db, "a", 8, func(*sql.Tx) error { return nil }), "the same holder, again")
	require.ErrorIs(t, fenced(t.Context(), db, "a", 7, func(*sql.Tx) error { return nil }), errStale)
	require.NoError(t, fenced(t.Context(), db, "b", 1, func(*sql.Tx) error { return nil }), "another lock")
}
