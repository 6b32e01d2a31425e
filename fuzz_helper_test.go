package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

// fuzzEndpoint is how the worker processes of go test -fuzz learn of the etcd that the first process started.
const fuzzEndpoint = "ETCDLOCK_FUZZ_ENDPOINT"

// fuzzClient returns the client of one etcd for all inputs of a fuzz target: starting one for each would leave no
// time for the inputs. The workers of go test -fuzz are killed in the end, so an etcd of their own would leave its
// directory behind: they use the first process's, each in a namespace.
func fuzzClient(f *testing.F) *clientv3.Client {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	endpoint := os.Getenv(fuzzEndpoint)
	client, stop, err := embedded.Client(ctx, endpoint)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, stop()) })
	if endpoint != "" {
		ns := fmt.Sprintf("%d:", os.Getpid())
		client.KV = namespace.NewKV(client.KV, ns)
		client.Watcher = namespace.NewWatcher(client.Watcher, ns)
		client.Lease = namespace.NewLease(client.Lease, ns)
	}
	f.Setenv(fuzzEndpoint, client.Endpoints()[0])
	return client
}

// nothingUnder waits until etcd has nothing under any of the prefixes.
func nothingUnder(t *testing.T, client *clientv3.Client, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			resp, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			return err == nil && resp.Count == 0
		}, "nothing is left under %q", prefix)
	}
}

// documented reports whether err is of a kind that the documentation of some call names.
func documented(err error) bool {
	for _, kind := range []error{
		etcdlock.ErrLocked, etcdlock.ErrLost, etcdlock.ErrClosed, etcdlock.ErrClientClosed, etcdlock.ErrNotHeld, etcdlock.ErrNotLeader,
		etcdlock.ErrNoLeader, etcdlock.ErrCampaigning, etcdlock.ErrUnconfirmed, etcdlock.ErrInvalidName, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return err == nil
}
