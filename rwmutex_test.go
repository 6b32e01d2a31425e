package etcdlock_test

import (
	"testing"

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
