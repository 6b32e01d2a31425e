package etcdlock_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

// awkward are names that are used verbatim, each a lock of its own.
var awkward = []string{
	"a", "a/", "/a", "/a/", "a//", "//a", "a/b", "a/b/", "a//b", "/", "//", " ", "a b", " a", "a ", "ключ", "锁/主", "a\tb\n",
	"a\x00", "\x00", "%2f", "..", "a/../b", "🔒", strings.Repeat("n", 1000), strings.Repeat("n/", 500),
}

func TestAllNamesAreDifferentLocks(t *testing.T) {
	client := newClient(t)
	s, other := newSession(t, client), newSession(t, client)
	held := make([]*etcdlock.Mutex, len(awkward))
	for i, name := range awkward {
		held[i] = etcdlock.NewMutex(s, name)
		if i%2 == 0 {
			require.NoError(t, held[i].TryLock(soon(t)), "%q", name)
		} else {
			require.NoError(t, held[i].Lock(soon(t)), "%q", name)
		}
	}
	for i, name := range awkward {
		m := held[i]
		assert.Equal(t, name, m.Name())
		leaf, ok := strings.CutPrefix(m.Key(), name+"/")
		assert.True(t, ok && !strings.Contains(leaf, "/"), "the ticket %q is not directly under %q", m.Key(), name)
		assert.Contains(t, keysUnder(t, client, name+"/"), m.Key(), "what etcdctl get --prefix shows")
		holder, err := m.Holder(soon(t))
		require.NoError(t, err)
		assert.Equal(t, m.Token(), holder.Token, "%q", name)
		waiting, err := m.Waiters(soon(t))
		require.NoError(t, err)
		assert.Empty(t, waiting, "names below %q are not in its queue", name)
		busy := (*etcdlock.LockedError)(nil)
		require.ErrorAs(t, etcdlock.NewMutex(other, name).TryLock(soon(t)), &busy, "%q", name)
		assert.Equal(t, m.Key(), busy.Key)
	}
	for i, name := range awkward {
		require.NoError(t, held[i].Verify(soon(t)), "%q", name)
		require.NoError(t, held[i].Unlock(soon(t)), "%q", name)
	}
	assert.Empty(t, keysUnder(t, client, ""))
}

func TestAHolderOfANameBelowBlocksNobodyAbove(t *testing.T) {
	client := newClient(t)
	s, other := newSession(t, client), newSession(t, client)
	for _, below := range []string{"n/b", "n/b/c", "n//", "n/ "} {
		inner := etcdlock.NewMutex(s, below)
		require.NoError(t, inner.Lock(soon(t)))
		for _, take := range []func(*etcdlock.Mutex, context.Context) error{(*etcdlock.Mutex).Lock, (*etcdlock.Mutex).TryLock} {
			m := etcdlock.NewMutex(other, "n")
			require.NoError(t, take(m, soon(t)), "behind %q", below)
			require.NoError(t, m.Unlock(soon(t)))
		}
		e := etcdlock.NewElection(other, "n")
		_, err := e.Leader(soon(t))
		require.ErrorIs(t, err, etcdlock.ErrNoLeader)
		require.NoError(t, e.Campaign(soon(t), "v"))
		l, err := e.Leader(soon(t))
		require.NoError(t, err)
		assert.Equal(t, "v", l.Value)
		require.NoError(t, e.Resign(soon(t)))
		require.NoError(t, inner.Unlock(soon(t)))
	}
}

// TestWaitersOfANameStepOverNamesBelow has tickets of names below between those of the queue: each turn must still come,
// in order, whatever stands between.
func TestWaitersOfANameStepOverNamesBelow(t *testing.T) {
	client := newClient(t)
	outer := etcdlock.NewMutex(newSession(t, client), "n")
	require.NoError(t, outer.Lock(soon(t)))
	turn := make(chan int, 4)
	queued := make([]*etcdlock.Mutex, 4)
	for i := range queued {
		inner := etcdlock.NewMutex(newSession(t, client), "n/"+strings.Repeat("b", i+1))
		require.NoError(t, inner.Lock(soon(t)))
		queued[i] = etcdlock.NewMutex(newSession(t, client), "n")
		ctx := soon(t)
		go func() {
			if assert.NoError(t, queued[i].Lock(ctx)) {
				turn <- i
			}
		}()
		waiters(t, outer, i+1)
	}
	err := outer.Unlock(soon(t))
	for i := range queued {
		require.NoError(t, err)
		select {
		case got := <-turn:
			require.Equal(t, i, got)
		case <-time.After(patience):
			require.Fail(t, "a turn never came")
		}
		err = queued[i].Unlock(soon(t))
	}
	require.NoError(t, err)
}

func TestAnEmptyNameIsRefusedByEveryCall(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m, e := etcdlock.NewMutex(s, ""), etcdlock.NewElection(s, "")
	ctx := soon(t)
	require.ErrorIs(t, m.Lock(ctx), etcdlock.ErrInvalidName)
	require.ErrorIs(t, m.TryLock(ctx), etcdlock.ErrInvalidName)
	require.ErrorIs(t, m.Do(ctx, func(context.Context) error { panic("called without a lock") }), etcdlock.ErrInvalidName)
	_, err := m.Holder(ctx)
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	_, err = m.Waiters(ctx)
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	require.ErrorIs(t, e.Campaign(ctx, "v"), etcdlock.ErrInvalidName)
	_, err = e.Leader(ctx)
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	n := 0
	for _, err := range e.Observe(ctx) {
		require.ErrorIs(t, err, etcdlock.ErrInvalidName)
		n++
	}
	assert.Equal(t, 1, n)
	assert.Empty(t, keysUnder(t, client, ""))
}
