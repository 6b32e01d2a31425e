package vaultlock_test

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/physical"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	vaultlock "github.com/etcdlock/etcdlock/adapters/vault"
	"github.com/etcdlock/etcdlock/locktest"
)

// This is the test that all HABackends of Vault have to pass, and that it exports.
func TestTheTestOfVault(t *testing.T) {
	etcd := locktest.New(t)
	physical.ExerciseHABackend(t, vaultlock.Backend{Session: etcd.Session(), Prefix: "/vault/"},
		vaultlock.Backend{Session: etcd.Session(), Prefix: "/vault/"})
}

func TestALossEndsTheLead(t *testing.T) {
	etcd := locktest.New(t)
	b := vaultlock.Backend{Session: etcd.Session(), Prefix: "/vault/"}
	require.True(t, b.HAEnabled())
	l, err := b.LockWith("core/lock", "10.0.0.1")
	require.NoError(t, err)
	held, _, err := l.Value()
	require.NoError(t, err)
	require.False(t, held)

	lost, err := l.Lock(nil)
	require.NoError(t, err)
	etcd.ExpireLeases()
	select {
	case <-lost:
	case <-time.After(20 * time.Second):
		t.Fatal("the loss is told")
	}
	require.ErrorIs(t, l.Unlock(), etcdlock.ErrLost)
	lost, err = l.Lock(nil)
	require.NoError(t, err, "and it can be had again")
	require.NotNil(t, lost)
	require.NoError(t, l.Unlock())
}
