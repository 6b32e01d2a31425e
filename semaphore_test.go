package etcdlock_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

func TestNoMoreThanNHoldAndAllHaveTheirTurn(t *testing.T) {
	client := newClient(t)
	const n = 3
	var now, most atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		sem := etcdlock.NewSemaphore(newSession(t, client), "pool", n)
		for range 4 {
			wg.Go(func() {
				for range 10 {
					assert.NoError(t, sem.Do(soon(t), func(context.Context) error {
						most.Store(max(most.Load(), now.Add(1)))
						now.Add(-1)
						return nil
					}))
				}
			})
		}
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(n))
	assert.Empty(t, keysUnder(t, client, "pool/"))
}

func TestWhoHoldsPermitsAndWhoWaits(t *testing.T) {
	client := newClient(t)
	a := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithIdentity("a")), "who", 3)
	b := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithIdentity("b")), "who", 3)
	two, err := a.AcquireN(soon(t), 2)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := b.AcquireN(ctx, 3)
		got <- err
	}()
	eventually(t, func() bool {
		w, err := a.Waiters(soon(t))
		return err == nil && len(w) == 1 && w[0].Identity == "b" && w[0].Class == "3 of 3"
	}, "b waits")
	holders, err := b.Holders(soon(t))
	require.NoError(t, err)
	require.Len(t, holders, 1)
	require.Equal(t, two.Token(), holders[0].Token)
	require.Equal(t, "2 of 3", holders[0].Class)
	_, err = a.TryAcquire(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrLocked, "one is free, and somebody waits for three")
	cancel()
	require.ErrorIs(t, <-got, context.Canceled)
	one, err := b.TryAcquire(soon(t))
	require.NoError(t, err)
	_, err = b.TryAcquire(soon(t))
	var locked *etcdlock.LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, "who", locked.Name)
	require.NoError(t, one.Verify(soon(t)))
	resp, err := client.Txn(soon(t)).If(one.IsOwner()...).Commit()
	require.NoError(t, err)
	require.True(t, resp.Succeeded)
	require.NoError(t, one.Release(soon(t)))
	require.ErrorIs(t, one.Release(soon(t)), etcdlock.ErrNotHeld)
	require.NoError(t, two.Release(soon(t)))
}

func TestWhatNoSemaphoreCanGiveIsSaidAtOnce(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	sem := etcdlock.NewSemaphore(s, "misuse", 3)
	var none context.Context
	for what, call := range map[string]func() (*etcdlock.Hold, error){
		"4 permits of 3":        func() (*etcdlock.Hold, error) { return sem.AcquireN(soon(t), 4) },
		"0 permits":             func() (*etcdlock.Hold, error) { return sem.AcquireN(soon(t), 0) },
		"-1 permits":            func() (*etcdlock.Hold, error) { return sem.TryAcquireN(soon(t), -1) },
		"semaphore of 0":        func() (*etcdlock.Hold, error) { return etcdlock.NewSemaphore(s, "misuse", 0).Acquire(soon(t)) },
		"semaphore of -2":       func() (*etcdlock.Hold, error) { return etcdlock.NewSemaphore(s, "misuse", -2).TryAcquire(soon(t)) },
		"no Session":            func() (*etcdlock.Hold, error) { return new(etcdlock.Semaphore).Acquire(soon(t)) },
		"nil context":           func() (*etcdlock.Hold, error) { return sem.Acquire(none) },
		"invalid name":          func() (*etcdlock.Hold, error) { return etcdlock.NewSemaphore(s, "", 3).Acquire(soon(t)) },
		"nothing to run":        func() (*etcdlock.Hold, error) { return nil, sem.Do(soon(t), nil) },
		"hold of a Semaphore":   func() (*etcdlock.Hold, error) { return nil, slotOfAReader(t, s) },
		"nil or zero Hold":      func() (*etcdlock.Hold, error) { _, _, err := new(etcdlock.Hold).Slot(soon(t)); return nil, err },
		"permits of 3, which w": func() (*etcdlock.Hold, error) { return sem.TryAcquireN(soon(t), 4) },
	} {
		h, err := call()
		require.ErrorContains(t, err, what)
		require.Nil(t, h, what)
	}
	require.Empty(t, keysUnder(t, client, "misuse/"))
}

func slotOfAReader(t *testing.T, s *etcdlock.Session) error {
	t.Helper()
	h, err := etcdlock.NewRWMutex(s, "slot").RLock(soon(t))
	require.NoError(t, err)
	_, _, err = h.Slot(soon(t))
	return err
}

func TestMembersThatDisagreeAreWarnedOnceAndTheErrorSaysTheOtherLimit(t *testing.T) {
	client := newClient(t)
	var out bytes.Buffer
	var mu sync.Mutex
	five := etcdlock.NewSemaphore(newSession(t, client), "limit", 5)
	s, err := etcdlock.NewSession(soon(t), client, etcdlock.WithLogger(slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))))
	require.NoError(t, err)
	three := etcdlock.NewSemaphore(s, "limit", 3)
	h, err := five.AcquireN(soon(t), 2)
	require.NoError(t, err)
	for range 2 {
		_, err := three.Acquire(within(t, 300*time.Millisecond))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "2 of 5")
		_, err = three.TryAcquire(soon(t))
		require.ErrorContains(t, err, "2 of 5")
	}
	require.NoError(t, h.Release(soon(t)))
	h, err = three.TryAcquire(soon(t))
	require.NoError(t, err)
	require.NoError(t, h.Release(soon(t)))
	require.NoError(t, s.Close())
	assert.Equal(t, 1, bytes.Count(out.Bytes(), []byte("level=WARN")), out.String())
	assert.Contains(t, out.String(), "limit=3 other=5")
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestAFreePermitIsOneRequestAndOneCommitAndSoIsItsRelease(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	sem := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithTTL(time.Minute)), "free", 3)
	other := etcdlock.NewSemaphore(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "free", 3)
	for held := range 3 {
		rev := revision(t, client)
		tp.requests()
		for range 5 {
			h, err := sem.Acquire(soon(t))
			require.NoError(t, err)
			require.NoError(t, h.Release(soon(t)))
		}
		assert.Equal(t, map[string]int{"Txn": 10}, tp.requests(), "while others hold %d", held)
		assert.Equal(t, rev+10, revision(t, client))
		_, err := other.Acquire(soon(t))
		require.NoError(t, err)
	}
}

func TestATryForAPermitIsOneRequestOrTwo(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	sem := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithTTL(time.Minute)), "try", 2)
	other := etcdlock.NewSemaphore(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "try", 2)
	try := func(want map[string]int, result error) *etcdlock.Hold {
		t.Helper()
		tp.requests()
		h, err := sem.TryAcquire(soon(t))
		require.ErrorIs(t, err, result)
		assert.Equal(t, want, tp.requests())
		return h
	}
	release := func(h *etcdlock.Hold) {
		t.Helper()
		require.NoError(t, h.Release(soon(t)))
	}
	release(try(map[string]int{"Txn": 1}, nil))
	one, err := other.Acquire(soon(t))
	require.NoError(t, err)
	release(try(map[string]int{"Txn": 2}, nil))
	two, err := other.Acquire(soon(t))
	require.NoError(t, err)
	rev, entries := revision(t, client), raftIndex(t, clus)
	try(map[string]int{"Txn": 1}, etcdlock.ErrLocked)
	assert.Equal(t, entries+1, raftIndex(t, clus))
	try(map[string]int{"Range": 1}, etcdlock.ErrLocked)
	try(map[string]int{"Range": 1}, etcdlock.ErrLocked)
	assert.Equal(t, rev, revision(t, client))
	assert.Equal(t, entries+1, raftIndex(t, clus))
	release(one)
	release(try(map[string]int{"Range": 1, "Txn": 1}, nil))
	release(two)
	a := try(map[string]int{"Txn": 1}, nil)
	b := try(map[string]int{"Txn": 2}, nil)
	release(a)
	release(b)
}

func TestNoReadStandsBetweenThePermitOfOneAndTheHoldOfTheNext(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewSemaphore(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "handoff", 3)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	sem := etcdlock.NewSemaphore(s, "handoff", 3)
	var held []*etcdlock.Hold
	for range 3 {
		h, err := holder.Acquire(soon(t))
		require.NoError(t, err)
		held = append(held, h)
	}
	got := make(chan *etcdlock.Hold)
	for range 3 {
		go func() {
			h, err := sem.Acquire(soon(t))
			assert.NoError(t, err)
			got <- h
		}()
	}
	eventually(t, func() bool {
		w, err := holder.Waiters(soon(t))
		return err == nil && len(w) == 3
	}, "three wait")
	settled(t, tp)
	stuck := make(chan struct{})
	tp.onUnary(func(_ string, send func() error) error { <-stuck; return send() })
	for _, i := range []int{1, 2, 0} {
		require.NoError(t, held[i].Release(soon(t)))
		<-got
	}
	assert.Empty(t, tp.requests(), "of three handoffs")
	tp.onUnary(nil)
	close(stuck)
}

func TestPermitsThatWaitCostAFewRequestsHoweverManyTheyAre(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewSemaphore(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "crowd", 2)
	h, err := holder.AcquireN(soon(t), 2)
	require.NoError(t, err)
	sem := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithTTL(time.Minute)), "crowd", 2)
	const n = 50
	tp.requests()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			assert.NoError(t, sem.Do(soon(t), func(context.Context) error { return nil }))
		})
	}
	eventually(t, func() bool {
		w, err := holder.Waiters(soon(t))
		return err == nil && len(w) == n
	}, "all wait")
	settled(t, tp)
	tp.requests()
	require.NoError(t, h.Release(soon(t)))
	wg.Wait()
	sent := tp.requests()
	assert.LessOrEqual(t, sent["Txn"], n+5, "one release each, and what a busy machine has sent again: %v", sent)
	assert.Zero(t, sent["Range"], sent)
}

func TestASlotIsTwoRequestsAndGoesWithTheRelease(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	sem := etcdlock.NewSemaphore(newSession(t, client, etcdlock.WithTTL(time.Minute)), "slots", 3)
	a, err := sem.Acquire(soon(t))
	require.NoError(t, err)
	b, err := sem.Acquire(soon(t))
	require.NoError(t, err)
	tp.requests()
	slot, first, err := a.Slot(soon(t))
	require.NoError(t, err)
	assert.Equal(t, 0, slot)
	assert.Equal(t, map[string]int{"Range": 1, "Txn": 1}, tp.requests())
	slot, _, err = b.Slot(soon(t))
	require.NoError(t, err)
	assert.Equal(t, 1, slot)
	tp.requests()
	slot, again, err := a.Slot(soon(t))
	require.NoError(t, err)
	assert.Equal(t, 0, slot)
	assert.Equal(t, first, again)
	assert.Equal(t, map[string]int{"Range": 1}, tp.requests())
	require.NoError(t, a.Release(soon(t)))
	assert.Equal(t, map[string]int{"Txn": 1}, tp.requests())
	assert.Len(t, keysUnder(t, client, "slots/"), 2)
	c, err := sem.Acquire(soon(t))
	require.NoError(t, err)
	slot, later, err := c.Slot(soon(t))
	require.NoError(t, err)
	assert.Equal(t, 0, slot)
	assert.Greater(t, later, first)
	// A Mutex of the name is not in the way of slots, nor are they in its way.
	m := etcdlock.NewMutex(newSession(t, clus.Client(0)), "slots")
	locked := make(chan error, 1)
	go func() { locked <- m.Lock(soon(t)) }()
	waiters(t, m, 1)
	require.NoError(t, b.Release(soon(t)))
	require.NoError(t, c.Release(soon(t)))
	require.NoError(t, <-locked)
	assert.Len(t, keysUnder(t, client, "slots/"), 1)
}
