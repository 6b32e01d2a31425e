package etcdlock_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

// What is long is printed short, and what etcd does not take it says at once.

func TestANameThatEtcdDoesNotTakeIsRefusedAtOnceAndNotRepeated(t *testing.T) {
	var log bytes.Buffer
	s := newSession(t, newClient(t), etcdlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	for what, size := range map[string]int{"more than the server takes": 1600 << 10, "more than the client sends": 2 << 20} {
		t.Run(what, func(t *testing.T) {
			name := strings.Repeat("n", size)
			m, e := etcdlock.NewMutex(s, name), etcdlock.NewElection(s, name)
			calls := map[string]func(context.Context) error{
				"Lock": m.Lock, "TryLock": m.TryLock,
				"Campaign": func(ctx context.Context) error { return e.Campaign(ctx, "v") },
			}
			calls["Observe"] = func(ctx context.Context) (last error) {
				for _, err := range e.Observe(ctx) {
					last = err
				}
				return last
			}
			if size == 2<<20 {
				calls["Holder"] = func(ctx context.Context) error { _, err := m.Holder(ctx); return err }
				calls["Leader"] = func(ctx context.Context) error { _, err := e.Leader(ctx); return err }
			}
			for call, f := range calls {
				start := time.Now()
				err := f(soon(t))
				require.Error(t, err, call)
				assert.Less(t, time.Since(start), promptly, call)
				assert.Regexp(t, "larger|large", err.Error(), call)
				assert.Contains(t, err.Error(), strings.Repeat("n", 64)+"...", call)
				assert.Less(t, len(err.Error()), 400, call)
			}
			for call, err := range map[string]error{"Unlock": m.Unlock(soon(t)), "Resign": e.Resign(soon(t)), "Verify": m.Verify(soon(t))} {
				assert.Less(t, len(err.Error()), 400, call)
			}
		})
	}
	require.NoError(t, s.Close())
	assert.Less(t, log.Len(), 1000)
}

func TestALockedErrorKeepsWhatItPrintsShort(t *testing.T) {
	client, long := newClient(t), strings.Repeat("l", 10_000)
	m := etcdlock.NewMutex(newSession(t, client, etcdlock.WithIdentity(long)), long)
	require.NoError(t, m.Lock(soon(t)))
	var by *etcdlock.LockedError
	require.ErrorAs(t, etcdlock.NewMutex(newSession(t, client), long).TryLock(soon(t)), &by)
	assert.Equal(t, []string{long, long, m.Key()}, []string{by.Name, by.Holder, by.Key}, "whole")
	assert.Less(t, len(by.Error()), 500)
	assert.Contains(t, by.Error(), "(10000 bytes)")
}
