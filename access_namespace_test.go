package etcdlock_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/etcdlock/etcdlock"
)

func TestNamespacedClients(t *testing.T) {
	t.Parallel()
	endpoint := newServer(t, nil)
	plain := dial(t, endpoint, clientv3.Config{})
	logged := newComplaints()
	opts := []etcdlock.Option{etcdlock.WithTTL(2 * time.Second), etcdlock.WithLogger(slog.New(logged))}
	type pair struct {
		what         string
		client       *clientv3.Client
		same         bool // the watches look where the reads do
		holds, waits *etcdlock.Mutex
		got          chan error
	}
	var pairs []*pair
	for wrapped := range 8 { // which of the three parts of the client are namespaced
		kv, watcher, lease := wrapped&1 != 0, wrapped&2 != 0, wrapped&4 != 0
		client := dial(t, endpoint, clientv3.Config{})
		prefix, name := "", fmt.Sprintf("name-%d", wrapped)
		if kv {
			client.KV = namespace.NewKV(client.KV, "ns/")
			prefix = "ns/"
		}
		if watcher {
			client.Watcher = namespace.NewWatcher(client.Watcher, "ns/")
		}
		if lease {
			client.Lease = namespace.NewLease(client.Lease, "ns/")
		}
		p := &pair{
			what:   fmt.Sprintf("namespaced: KV %t, Watcher %t, Lease %t", kv, watcher, lease),
			client: client, same: kv == watcher, got: make(chan error, 1),
			holds: etcdlock.NewMutex(newSession(t, client, opts...), name),
			waits: etcdlock.NewMutex(newSession(t, client, opts...), name),
		}
		pairs = append(pairs, p)
		require.NoError(t, p.holds.Lock(soon(t)), p.what)
		assert.Equal(t, []string{prefix + p.holds.Key()}, keysUnder(t, plain, prefix+name+"/"), p.what)
		go func() { p.got <- p.waits.Lock(soon(t)) }()
		waiters(t, p.holds, 1)
	}
	elapse(t, 2*time.Second) // renewals with their checks, and the watch on a held ticket
	for _, p := range pairs {
		require.NoError(t, p.holds.Context().Err(), p.what)
		require.NoError(t, p.holds.Verify(soon(t)), p.what)
		require.Empty(t, p.got, "%s: one holds", p.what)

		// Where the watch looks elsewhere than the reads, the renewal's read finds out.
		start := time.Now()
		require.NoError(t, p.holds.Unlock(soon(t)), p.what)
		require.NoError(t, <-p.got, p.what)
		assert.Less(t, time.Since(start), 2*time.Second/3+promptly, p.what)
		require.NoError(t, p.waits.Verify(soon(t)), p.what)
		require.NoError(t, p.waits.Unlock(soon(t)), p.what)
		if p.same {
			tour(t, p.client, p.holds.Name()+"/tour")
		}
	}
	require.Empty(t, logged.list(), "no false loss")
}
