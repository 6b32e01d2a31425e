package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

func TestAHundredGoroutinesOfOneSessionExcludeEachOther(t *testing.T) {
	client := newClient(t)
	for _, values := range []int{1, 100} {
		t.Run(fmt.Sprintf("%d values", values), func(t *testing.T) {
			s := newSession(t, client)
			ms := make([]*etcdlock.Mutex, values)
			for i := range ms {
				ms[i] = etcdlock.NewMutex(s, "hundred")
			}
			exclude(t, func(i int) *etcdlock.Mutex { return ms[i%values] }, 100, 5)
			assert.Empty(t, keysUnder(t, client, "hundred/"))
		})
	}
}

func TestSessionsExcludeEachOther(t *testing.T) {
	client := newClient(t)
	ms := make([]*etcdlock.Mutex, 8)
	for i := range ms {
		ms[i] = etcdlock.NewMutex(newSession(t, client), "sessions")
	}
	exclude(t, func(i int) *etcdlock.Mutex { return ms[i%8] }, 32, 10)
	assert.Empty(t, keysUnder(t, client, "sessions/"))
}

// exclude runs goroutines that lock in turn and checks that one is inside at a time, with a token that grows.
func exclude(t *testing.T, mutex func(int) *etcdlock.Mutex, goroutines, rounds int) {
	t.Helper()
	var inside, last int64 // guarded by the lock alone: the race detector checks it too
	excludeWith(t, func(g int) {
		m := mutex(g)
		err := m.Do(soon(t), func(ctx context.Context) error {
			inside++
			defer func() { inside-- }()
			token := m.Token()
			switch {
			case inside != 1:
				return fmt.Errorf("%d inside", inside)
			case token <= last:
				return fmt.Errorf("token %d after %d", token, last)
			}
			last = token
			return ctx.Err()
		})
		assert.NoError(t, err)
	}, goroutines, rounds)
}

func excludeWith(t *testing.T, turn func(int), goroutines, rounds int) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range rounds {
				turn(g)
			}
		})
	}
	wg.Wait()
}

func TestLockWaitsInOrder(t *testing.T) {
	client := newClient(t)
	first := etcdlock.NewMutex(newSession(t, client), "order")
	require.NoError(t, first.Lock(soon(t)))
	shared := newSession(t, client)
	var wg sync.WaitGroup
	var order []int
	for i := range 12 {
		s := shared
		if i%3 == 0 { // some wait in memory, some through etcd
			s = newSession(t, client)
		}
		m := etcdlock.NewMutex(s, "order")
		wg.Go(func() {
			assert.NoError(t, m.Lock(soon(t)))
			order = append(order, i)
			assert.NoError(t, m.Unlock(soon(t)))
		})
		waiters(t, first, i+1)
	}
	require.NoError(t, first.Unlock(soon(t)))
	wg.Wait()
	assert.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, order)
}

func TestTryLockNamesTheHolderAndWritesNothing(t *testing.T) {
	client := newClient(t)
	a := etcdlock.NewMutex(newSession(t, client, etcdlock.WithIdentity("10.0.0.1:80")), "try")
	b := etcdlock.NewMutex(newSession(t, client), "try")
	require.NoError(t, a.TryLock(soon(t)))
	before := revision(t, client)
	for range 3 {
		err := b.TryLock(soon(t))
		require.ErrorIs(t, err, etcdlock.ErrLocked)
		var by *etcdlock.LockedError
		require.ErrorAs(t, err, &by)
		assert.Equal(t, etcdlock.LockedError{Name: "try", Holder: "10.0.0.1:80", Token: a.Token(), Key: a.Key()}, *by)
	}
	assert.Equal(t, before, revision(t, client))
	require.NoError(t, a.Unlock(soon(t)))
	require.NoError(t, b.TryLock(soon(t)))
	require.NoError(t, b.Unlock(soon(t)))
}

func revision(t *testing.T, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(soon(t), "nothing")
	require.NoError(t, err)
	return resp.Header.Revision
}

func TestLockThatTimesOutLeavesNothing(t *testing.T) {
	client := newClient(t)
	a := etcdlock.NewMutex(newSession(t, client, etcdlock.WithIdentity("a")), "late")
	b := etcdlock.NewMutex(newSession(t, client), "late")
	require.NoError(t, a.Lock(soon(t)))
	start := time.Now()
	err := b.Lock(within(t, 300*time.Millisecond))
	assert.Less(t, time.Since(start), promptly)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, etcdlock.ErrLocked)
	var by *etcdlock.LockedError
	require.ErrorAs(t, err, &by)
	assert.Equal(t, "a", by.Holder)
	eventually(t, func() bool { return len(keysUnder(t, client, "late/")) == 1 }, "the waiter's ticket is gone")
}

func TestUnlockCaseByCase(t *testing.T) {
	client := newClient(t)
	m := etcdlock.NewMutex(newSession(t, client), "cases")
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrNotHeld)
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrNotHeld)

	require.NoError(t, m.Lock(soon(t)))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, m.Unlock(over), context.Canceled)
	require.NoError(t, m.Unlock(soon(t)), "the clean-up's outcome")
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrNotHeld)
}

func TestALostHoldOccupiesItsValueUntilUnlock(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m := etcdlock.NewMutex(s, "lost")
	require.NoError(t, m.Lock(soon(t)))
	held := m.Context()
	_, err := client.Revoke(soon(t), s.Lease())
	require.NoError(t, err)
	<-held.Done()
	require.ErrorIs(t, context.Cause(held), etcdlock.ErrLost)
	require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrLocked)
	err = m.Lock(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, etcdlock.ErrLocked)

	other := etcdlock.NewMutex(s, "lost")
	require.NoError(t, other.Lock(soon(t)), "the Session heals")
	require.NoError(t, other.Unlock(soon(t)))
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrLost)
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrNotHeld)
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
}

func TestDoReleasesAfterTheFunction(t *testing.T) {
	client := newClient(t)
	m := etcdlock.NewMutex(newSession(t, client), "do")
	boom := errors.New("boom")
	type key struct{}
	err := m.Do(context.WithValue(soon(t), key{}, 1), func(ctx context.Context) error {
		assert.Equal(t, 1, ctx.Value(key{}))
		assert.Len(t, keysUnder(t, client, "do/"), 1)
		return boom
	})
	require.ErrorIs(t, err, boom)
	assert.Empty(t, keysUnder(t, client, "do/"))
	assert.PanicsWithValue(t, "oops", func() {
		_ = m.Do(soon(t), func(context.Context) error { panic("oops") })
	})
	assert.Empty(t, keysUnder(t, client, "do/"))
}

func TestAWaiterThatGivesUpIsSteppedOver(t *testing.T) {
	client := newClient(t)
	one := newSession(t, client)
	for name, sessions := range map[string][2]*etcdlock.Session{
		"in memory":    {one, one},
		"through etcd": {newSession(t, client), newSession(t, client)},
	} {
		t.Run(name, func(t *testing.T) {
			holder := etcdlock.NewMutex(newSession(t, client), "step")
			leaves, stays := etcdlock.NewMutex(sessions[0], "step"), etcdlock.NewMutex(sessions[1], "step")
			require.NoError(t, holder.Lock(soon(t)))
			ctx, cancel := context.WithCancel(t.Context())
			left, got := make(chan error, 1), make(chan error, 1)
			go func() { left <- leaves.Lock(ctx) }()
			waiters(t, holder, 1)
			go func() { got <- stays.Lock(soon(t)) }()
			waiters(t, holder, 2)
			cancel()
			require.ErrorIs(t, <-left, context.Canceled)
			waiters(t, holder, 1)
			select {
			case <-got:
				t.Fatal("granted behind a ticket that never held")
			case <-within(t, 200*time.Millisecond).Done():
			}
			require.NoError(t, holder.Unlock(soon(t)))
			require.NoError(t, <-got)
			require.NoError(t, stays.Unlock(soon(t)))
		})
	}
}
