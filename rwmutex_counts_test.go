package etcdlock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/tests/v3/framework/integration"

	"github.com/etcdlock/etcdlock"
)

// What readers cost etcd, counted.

// tapped is an RWMutex on a Session and a client of its own, whose requests are counted. A hold lasts so little of its TTL
// that nothing is watched for it.
func tapped(t *testing.T, clus *integration.Cluster, name string) (*etcdlock.RWMutex, *tap) {
	t.Helper()
	client, tp := newTappedClient(t, clus)
	m := etcdlock.NewRWMutex(newSession(t, client, etcdlock.WithTTL(time.Hour)), name)
	tp.requests()
	return m, tp
}

func TestAFreeReadLockIsOneRequestAndOneCommit(t *testing.T) {
	clus := newCluster(t, 1)
	m, tp := tapped(t, clus, "free")
	beside, err := etcdlock.NewRWMutex(newSession(t, clus.Client(0)), "free").RLock(soon(t))
	require.NoError(t, err)
	for what, take := range map[string]func(context.Context) (*etcdlock.Hold, error){"RLock": m.RLock, "TryRLock": m.TryRLock} {
		rev := revision(t, clus.Client(0))
		tp.requests()
		for range 10 {
			h, err := take(soon(t))
			require.NoError(t, err)
			require.NoError(t, h.Release(soon(t)))
		}
		assert.Equal(t, map[string]int{"Txn": 20}, tp.requests(), what)
		assert.Equal(t, rev+20, revision(t, clus.Client(0)), what)
	}
	require.NoError(t, beside.Release(soon(t)))
}

func TestABusyTryRLockIsAReadAloneFromTheSecondOn(t *testing.T) {
	clus := newCluster(t, 1)
	m, tp := tapped(t, clus, "busy")
	reader, err := m.RLock(soon(t)) // a reader that holds is not what is in the way
	require.NoError(t, err)
	writer := etcdlock.NewMutex(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "busy")
	wrote := make(chan error, 1)
	go func() { wrote <- writer.Lock(soon(t)) }()
	waiters(t, writer, 1)
	for _, want := range []struct {
		times   int
		sent    map[string]int
		entries uint64
	}{
		{1, map[string]int{"Txn": 1}, 1},
		{10, map[string]int{"Range": 10}, 0},
	} {
		rev, entries := revision(t, clus.Client(0)), raftIndex(t, clus)
		tp.requests()
		for range want.times {
			_, err := m.TryRLock(soon(t))
			require.ErrorIs(t, err, etcdlock.ErrLocked)
		}
		assert.Equal(t, want.sent, tp.requests())
		assert.Equal(t, rev, revision(t, clus.Client(0)))
		assert.Equal(t, entries+want.entries, raftIndex(t, clus))
	}
	tp.requests()
	require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrLocked)
	assert.Empty(t, tp.requests(), "a writer is told of the Session's own reader")
	require.NoError(t, reader.Release(soon(t)))
	require.NoError(t, <-wrote)
}

// A writer's release reaches every reader that waits, of its own Session and of others, before anybody asks anything.
func TestOneReleaseOfAWriterReachesAllReaders(t *testing.T) {
	const others, each = 8, 3
	clus := newCluster(t, 1)
	m, tp := tapped(t, clus, "phase")
	require.NoError(t, m.Lock(soon(t)))
	holds := make(chan *etcdlock.Hold, (others+1)*each)
	taps := []*tap{}
	var wg sync.WaitGroup
	readers := func(m *etcdlock.RWMutex) {
		for range each {
			wg.Go(func() {
				h, err := m.RLock(soon(t))
				if assert.NoError(t, err) {
					holds <- h
				}
			})
		}
	}
	readers(m)
	for range others {
		m, tp := tapped(t, clus, "phase")
		taps = append(taps, tp)
		readers(m)
	}
	waiters(t, &m.Mutex, cap(holds))
	for _, tp := range taps {
		settled(t, tp)
		sent := tp.requests()
		assert.Empty(t, sent)
	}
	stuck := make(chan struct{})
	let := sync.OnceFunc(func() { close(stuck) })
	t.Cleanup(let)
	first := make(chan struct{}, 1)
	first <- struct{}{}
	for _, tp := range append(taps, tp) {
		tp.onUnary(func(_ string, send func() error) error {
			select {
			case <-first: // the release
			case <-stuck:
			}
			return send()
		})
	}
	rev := revision(t, clus.Client(0))
	require.NoError(t, m.Unlock(soon(t)))
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	select {
	case <-all:
	case <-soon(t).Done():
		require.Fail(t, "a reader has asked for something")
	}
	assert.Equal(t, rev+1, revision(t, clus.Client(0)))
	for _, tp := range append(taps, tp) {
		tp.onUnary(nil)
	}
	let()
	require.Len(t, holds, cap(holds))
	close(holds)
	for h := range holds {
		require.NoError(t, h.Release(soon(t)))
	}
}

func TestAReaderBehindAWriterIsTwoRequestsAndAWatch(t *testing.T) {
	clus := newCluster(t, 1)
	m, tp := tapped(t, clus, "behind")
	writer := etcdlock.NewMutex(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Hour)), "behind")
	for round := range 3 {
		require.NoError(t, writer.Lock(soon(t)))
		tp.requests()
		got := make(chan *etcdlock.Hold, 1)
		go func() {
			h, err := m.RLock(soon(t))
			assert.NoError(t, err)
			got <- h
		}()
		waiters(t, writer, 1)
		require.NoError(t, writer.Unlock(soon(t)))
		require.NoError(t, (<-got).Release(soon(t)))
		sent := tp.requests()
		assert.LessOrEqual(t, sent["Txn"], 4, "put, still there, perhaps the check of the hold, deletion: %v", sent)
		assert.LessOrEqual(t, sent["Range"], 1, "who holds, for an error: %v", sent)
		assert.Equal(t, round == 0, sent["stream Watch"] == 1, sent)
	}
}

// However readers leave, the last of them lets the writer in at once: nothing that the writer asks stands in between.
func TestTheLastReaderLetsTheWriterInAtOnce(t *testing.T) {
	for order, leave := range map[string]func([]*etcdlock.Hold){
		"first come, first gone": func([]*etcdlock.Hold) {},
		"at random":              func(h []*etcdlock.Hold) { rand.Shuffle(len(h), func(i, j int) { h[i], h[j] = h[j], h[i] }) },
	} {
		for where, local := range map[string]bool{"of other Sessions": false, "of its own Session": true} {
			for _, readers := range []int{1, 50} {
				lastReader(t, fmt.Sprintf("%s, %d %s", order, readers, where), readers, leave, local)
			}
		}
	}
}

func lastReader(t *testing.T, name string, readers int, leave func([]*etcdlock.Hold), local bool) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		clus := newCluster(t, 1)
		m, tp := tapped(t, clus, "last")
		from := m
		if !local {
			from, _ = tapped(t, clus, "last")
		}
		var held []*etcdlock.Hold
		for range readers {
			h, err := from.RLock(soon(t))
			require.NoError(t, err)
			held = append(held, h)
		}
		wrote := make(chan error, 1)
		go func() { wrote <- m.Lock(soon(t)) }()
		waiters(t, &m.Mutex, 1)
		leave(held)
		settled(t, tp)
		for _, h := range held[:readers-1] {
			require.NoError(t, h.Release(soon(t)))
		}
		settled(t, tp)
		require.Empty(t, wrote)
		stuck := make(chan struct{})
		t.Cleanup(sync.OnceFunc(func() { close(stuck) }))
		deletion := make(chan struct{}, 1)
		deletion <- struct{}{}
		tp.onUnary(func(_ string, send func() error) error {
			if local {
				select {
				case <-deletion:
					return send()
				default:
				}
			}
			<-stuck
			return send()
		})
		require.NoError(t, held[readers-1].Release(soon(t)))
		select {
		case err := <-wrote:
			require.NoError(t, err)
		case <-soon(t).Done():
			require.Fail(t, "the writer has asked for something")
		}
		tp.onUnary(nil)
		require.NoError(t, m.Unlock(soon(t)))
	})
}
