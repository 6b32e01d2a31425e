package cluster

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func startForTest(t *testing.T, members int) (*Cluster, *clientv3.Client, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := Start(ctx, Options{Members: members, Dir: t.TempDir(), Args: []string{"--unsafe-no-fsync"}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, c.Close())
		require.NoDirExists(t, c.dir)
	})
	cli, err := NewClient(c.Endpoints()...)
	require.NoError(t, err)
	t.Cleanup(func() { cli.Close() })
	return c, cli, ctx
}

func value(ctx context.Context, t *testing.T, cli *clientv3.Client) string {
	t.Helper()
	var got *clientv3.GetResponse
	require.Eventually(t, func() bool {
		try, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var err error
		got, err = cli.Get(try, "k")
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
	if len(got.Kvs) == 0 {
		return ""
	}
	return string(got.Kvs[0].Value)
}

func TestDataOutlivesKillAndGoesBackAndIsEmptied(t *testing.T) {
	c, cli, ctx := startForTest(t, 1)
	_, err := cli.Put(ctx, "k", "old")
	require.NoError(t, err)
	require.NoError(t, c.Save(ctx))
	_, err = cli.Put(ctx, "k", "new")
	require.NoError(t, err)

	require.NoError(t, c.Members[0].Restart())
	require.NoError(t, c.WaitReady(ctx))
	require.Equal(t, "new", value(ctx, t, cli))
	require.NoError(t, c.Load(ctx))
	require.Equal(t, "old", value(ctx, t, cli))
	require.NoError(t, c.Empty(ctx))
	require.Empty(t, value(ctx, t, cli))
}

func TestFrozenLeaderIsSucceededAndMembersAreReplaced(t *testing.T) {
	c, cli, ctx := startForTest(t, 3)
	old, err := c.Leader(ctx)
	require.NoError(t, err)
	require.NoError(t, old.Stop())
	require.Eventually(t, func() bool {
		for _, m := range c.Members {
			if m == old {
				continue
			}
			if st, err := m.status(ctx); err == nil && st.Leader == st.Header.MemberId {
				return true
			}
		}
		return false
	}, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, old.Cont())
	require.NoError(t, old.WaitReady(ctx))

	_, err = cli.Put(ctx, "k", "kept")
	require.NoError(t, err)
	for _, m := range c.Members {
		require.NoError(t, c.Replace(ctx, m), m.Name)
	}
	one, err := NewClient(old.Addr())
	require.NoError(t, err)
	defer one.Close()
	require.Equal(t, "kept", value(ctx, t, one))
	_, err = os.Stat(old.Log())
	require.NoError(t, err)
}
