package etcdlock

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// This file has what an uncontended lock costs in this library alone, on the etcd in memory. It names nothing that came later
// than WithLinger, so that it can be copied into a clone of older code and compared with that.

// cycles are ways to take and release a lock, without asking etcd for it and with.
var cycles = []struct {
	name string
	of   func(testing.TB, ...Option) (cycle func())
}{{"lingering", lingering}, {"asking", asking}}

// asking returns what takes and releases a lock.
func asking(tb testing.TB, opts ...Option) (cycle func()) {
	tb.Helper()
	cycle, _ = newCycle(tb, opts)
	return cycle
}

// lingering returns what takes and releases a lock without asking etcd: whatever is added to that shows.
func lingering(tb testing.TB, opts ...Option) (cycle func()) {
	tb.Helper()
	cycle, etcd := newCycle(tb, append(opts, WithLinger(time.Hour)))
	for rev := int64(0); rev != etcd.Rev(); cycle() { // until it lingers
		rev = etcd.Rev()
		runtime.Gosched()
	}
	return cycle
}

func newCycle(tb testing.TB, opts []Option) (cycle func(), etcd *memetcd.Server) {
	tb.Helper()
	etcd = memetcd.New(memetcd.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	s, err := NewSession(ctx, etcd.Client(ctx), append(opts, WithTTL(time.Hour))...)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, s.Close())
		cancel()
		etcd.Close()
	})
	m := NewMutex(s, "a")
	return func() {
		if err := errors.Join(m.Lock(ctx), m.Unlock(ctx)); err != nil {
			panic(err)
		}
	}, etcd
}

func BenchmarkCycle(b *testing.B) {
	for _, kind := range cycles {
		b.Run(kind.name, func(b *testing.B) {
			cycle := kind.of(b)
			b.ReportAllocs()
			for b.Loop() {
				cycle()
			}
		})
	}
}
