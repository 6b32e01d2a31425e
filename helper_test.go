package etcdlock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/framework/integration"
	"go.uber.org/goleak"

	"github.com/etcdlock/etcdlock"
)

// patience is what an ordinary test gives to what should take no time.
const patience = 20 * time.Second

// promptly is what a busy machine may take for what waits for nothing. The exact times are tested in fake time.
const promptly = 4 * time.Second

// newCluster starts an embedded cluster that ends with the test. Then no goroutine is left that was not there before.
func newCluster(t *testing.T, size int) *integration.Cluster {
	t.Helper()
	before := goleak.IgnoreCurrent()
	integration.BeforeTest(t, integration.WithoutGoLeakDetection(), integration.WithoutSkipInShort())
	clus := integration.NewCluster(t, &integration.ClusterConfig{Size: size, UseBridge: true})
	t.Cleanup(func() { // after those of the Sessions and clients, which are registered later
		clus.Terminate(t)
		goleak.VerifyNone(t, before)
	})
	return clus
}

// newClient returns the client of a one-member cluster.
func newClient(t *testing.T) *clientv3.Client {
	t.Helper()
	return newCluster(t, 1).Client(0)
}

// newSession opens a session that is closed with the test.
func newSession(t *testing.T, client *clientv3.Client, opts ...etcdlock.Option) *etcdlock.Session {
	t.Helper()
	s, err := etcdlock.NewSession(soon(t), client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// soon is a context for calls that must not hang.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// within is a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds. It asks on the caller's goroutine, so that cond may use require, which on any other
// could not end the test.
func eventually(t *testing.T, cond func() bool, what string, args ...any) {
	t.Helper()
	end := time.Now().Add(patience)
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for !cond() {
		require.Falsef(t, time.Now().After(end), what, args...)
		<-pause.C
	}
}

// keysUnder lists what etcd has under a prefix.
func keysUnder(t *testing.T, client *clientv3.Client, prefix string) []string {
	t.Helper()
	resp, err := client.Get(soon(t), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	keys := make([]string, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		keys[i] = string(kv.Key)
	}
	return keys
}

// waiters waits until n others queue behind the holder of m.
func waiters(t *testing.T, m *etcdlock.Mutex, n int) {
	t.Helper()
	eventually(t, func() bool {
		w, err := m.Waiters(soon(t))
		return err == nil && len(w) == n
	}, "%d waiters", n)
}

// takeOver has m wait behind holder, which holds, until holder releases and m holds.
func takeOver(t *testing.T, m, holder *etcdlock.Mutex) {
	t.Helper()
	got := make(chan error, 1)
	go func() { got <- m.Lock(soon(t)) }()
	waiters(t, holder, 1)
	require.NoError(t, holder.Unlock(soon(t)))
	require.NoError(t, <-got)
}

// cut swallows all traffic of client 0 while its connection stays up. The bridge lets one more message through in each
// direction after Blackhole, so one is spent on that.
func cut(t *testing.T, clus *integration.Cluster) {
	t.Helper()
	clus.Members[0].Bridge().Blackhole()
	t.Cleanup(clus.Members[0].Bridge().Unblackhole)
	eventually(t, func() bool {
		_, err := clus.Client(0).Get(within(t, 100*time.Millisecond), "nothing")
		return err != nil
	}, "the traffic is cut")
}

// who is a leader without the revisions of what it says.
func who(l etcdlock.Leader) etcdlock.Leader {
	return etcdlock.Leader{Value: l.Value, Token: l.Token, Key: l.Key}
}
