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

// all are hooks that do nothing.
var all = Hooks{
	WaitBegun: func(context.Context, Wait) {}, WaitEnded: func(context.Context, WaitEnd) {}, HoldEnded: func(HoldEnd) {},
	Renewed: func(Renewal) {}, LeaseReplaced: func(LeaseReplacement) {}, Overrun: func(Overrun) {},
}

// lingering returns what takes and releases a lock without asking etcd: whatever is added to that shows.
func lingering(tb testing.TB, opts ...Option) (cycle func()) {
	tb.Helper()
	etcd := memetcd.New(memetcd.Config{})
	ctx, cancel := context.WithCancel(context.Background())
	s, err := NewSession(ctx, etcd.Client(ctx), append(opts, WithLinger(time.Hour), WithTTL(time.Hour))...)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, s.Close())
		cancel()
		etcd.Close()
	})
	m := NewMutex(s, "a")
	cycle = func() {
		if err := errors.Join(m.Lock(ctx), m.Unlock(ctx)); err != nil {
			panic(err)
		}
	}
	for rev := int64(0); rev != etcd.Rev(); cycle() { // until it lingers
		rev = etcd.Rev()
		runtime.Gosched()
	}
	return cycle
}

// Before there were hooks it was as many.
func TestWithoutHooksALockAllocatesNoMore(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(1000, lingering(t)), 7.0)
}

// BenchmarkHooks has what hooks add to a lock that costs nothing else. With hooks its time includes those of the other
// goroutine, which calls them.
func BenchmarkHooks(b *testing.B) {
	for name, opts := range map[string][]Option{"none": nil, "empty": {WithHooks(Hooks{})}, "all": {WithHooks(all)}} {
		b.Run(name, func(b *testing.B) {
			cycle := lingering(b, opts...)
			b.ReportAllocs()
			for b.Loop() {
				cycle()
			}
		})
	}
}
