package etcdlock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

func TestReadersHoldTogetherAndAWriterAlone(t *testing.T) {
	client := newClient(t)
	a, b := newSession(t, client), newSession(t, client)
	name := t.Name()
	one, two := etcdlock.NewRWMutex(a, name), etcdlock.NewRWMutex(b, name)
	r1, err := one.RLock(t.Context())
	require.NoError(t, err)
	r2, err := two.TryRLock(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, two.TryLock(t.Context()), etcdlock.ErrLocked)
	require.NoError(t, r1.Release(t.Context()))
	require.ErrorIs(t, r1.Release(t.Context()), etcdlock.ErrNotHeld)
	require.ErrorIs(t, one.TryLock(t.Context()), etcdlock.ErrLocked, "of the second of two readers")
	require.NoError(t, r2.Release(t.Context()))
	require.NoError(t, one.Lock(t.Context()))
	_, err = two.TryRLock(t.Context())
	require.ErrorIs(t, err, etcdlock.ErrLocked)
	require.NoError(t, one.Unlock(t.Context()))
}

func TestHoldersAreThoseThatHoldTogether(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithIdentity("me"))
	m := etcdlock.NewRWMutex(s, "name")
	holders, err := m.Holders(soon(t))
	require.NoError(t, err)
	require.Empty(t, holders)
	_, err = m.Holder(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrNotHeld)

	r1, err := m.RLock(soon(t))
	require.NoError(t, err)
	r2, err := m.RLock(soon(t))
	require.NoError(t, err)
	for _, leaf := range []string{"of-10-w2-1-1", "read-zz", "zz"} {
		_, err := client.Put(soon(t), "name/"+leaf, "by hand")
		require.NoError(t, err)
	}

	reader := func(h *etcdlock.Hold) etcdlock.Contender {
		return etcdlock.Contender{Identity: "me", Token: h.Token(), Lease: s.Lease(), Key: h.Key(), Class: "read", Modified: h.Token()}
	}
	holders, err = m.Holders(soon(t))
	require.NoError(t, err)
	require.Equal(t, []etcdlock.Contender{reader(r1), reader(r2)}, holders)
	holder, err := m.Holder(soon(t))
	require.NoError(t, err)
	require.Equal(t, reader(r1), holder)
	waiters, err := m.Waiters(soon(t))
	require.NoError(t, err)
	var classes []string
	for _, w := range waiters {
		classes = append(classes, w.Class)
	}
	require.Equal(t, []string{"2 of 10", "read", ""}, classes)

	for what, call := range map[string]func() error{
		"TryLock": func() error { return m.TryLock(soon(t)) },
		"Lock":    func() error { return m.Lock(within(t, 300*time.Millisecond)) },
	} {
		err := call()
		var by *etcdlock.LockedError
		require.ErrorAs(t, err, &by, what)
		assert.Equal(t, "read", by.Class, what)
		require.ErrorContains(t, err, "(read, ticket ", what)
	}
}
