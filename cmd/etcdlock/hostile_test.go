//go:build unix

package main

import (
	"context"
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A prefix may end in the middle of a ticket. Of the lock that this belongs to only a part of the queue was read then, in
// which somebody who waits would be the first.
func TestLsShowsNoPartOfAQueue(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	lock(t, "hold", name(t)).says("token")
	lock(t, "hold", name(t))
	waitsFor(t, c, name(t), 2)
	for _, ticket := range keys(t, c, name(t)+"/") {
		assert.Empty(t, queues(t, lock(t, "ls", "--json", ticket).wait()))
	}
	got := queues(t, lock(t, "ls", "--json", name(t)[:len(name(t))-1]).wait())
	require.Len(t, got, 1)
	assert.Len(t, got[0].Waiters, 1)
}

func TestLsShowsALockThatStays(t *testing.T) {
	t.Parallel()
	_ = sharedEtcd(t)
	require.Equal(t, 0, lock(t, "run", name(t), "--hold-at-least", "1h", "--", "true").code())
	got := queues(t, lock(t, "ls", "--json", name(t)).wait())
	require.Len(t, got, 1)
	assert.Len(t, got[0].Holders, 1)
}

// Whoever stands in a queue chooses what is shown of him: it makes no row of its own, and tells a terminal nothing.
func TestWhoShowsOneRowForEachPlaceWhateverItsValue(t *testing.T) {
	t.Parallel()
	p := lock(t, "elect", name(t), "a\nb  holds\tevil \x1b[31m")
	p.says("token")
	out := lock(t, "who", name(t)).wait()
	assert.Equal(t, 2, strings.Count(out, "\n"), out)
	assert.Contains(t, out, `"a\nb  holds\tevil \x1b[31m"`)
}

// What who has to say may have no reader: then a signal ends it, though it still writes.
func TestASignalEndsWhatIsStillWritten(t *testing.T) {
	t.Parallel()
	g := new(gate)
	g.ctx, g.cancel = context.WithCancel(t.Context())
	writes := make(chan struct{})
	go func() {
		<-writes
		g.take(syscall.SIGTERM)
	}()
	forEver := make(chan struct{})
	defer close(forEver)
	assert.ErrorIs(t, g.unlessSignalled(func() error { close(writes); <-forEver; return nil }), context.Canceled)
	assert.Equal(t, &ending{exitSignal + int(syscall.SIGTERM), nil}, g.signalled())
}

// What hold has to say may have no reader. It ends by a signal and by a loss all the same.
func TestHoldEndsThoughNobodyReadsItsLine(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	for _, lost := range []bool{false, true} {
		p := prepared(t, sharedEtcd(t), "hold", name(t))
		p.cmd.Stdout = full(t)
		p.start()
		waitsFor(t, c, name(t), 1)
		if lost {
			lose(t, c)
			assert.Equal(t, exitLost, p.code())
			continue
		}
		p.signal(syscall.SIGTERM)
		assert.Contains(t, []int{0, exitSignal + int(syscall.SIGTERM)}, p.code()) // its answer may be under way
		assert.Empty(t, keys(t, c, name(t)+"/"))
	}
}

func TestANameOfTwoLinesHasItsWholeKey(t *testing.T) {
	t.Parallel()
	p := lock(t, "run", name(t)+"\nmore", "-c", `test "$ETCD_LOCK_KEY" = "$ETCDLOCK_KEY" && echo same`)
	assert.Equal(t, "same\n", p.wait())
	var got holding
	p = lock(t, "hold", name(t)+"\nmore")
	p.says("token")
	require.NoError(t, json.Unmarshal([]byte(p.out.String()), &got))
	assert.True(t, strings.HasPrefix(got.Key, name(t)+"\nmore/"))
}
