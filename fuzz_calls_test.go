package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// FuzzCalls decodes its input into calls: each byte one, dealt out to four goroutines that share two Sessions, three
// Mutex values of one name and two candidates of another. Whatever the order, the invariants must hold after each call.
//
//	go test -fuzz FuzzCalls -fuzztime 60s .
func FuzzCalls(f *testing.F) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i * 37) // all calls, mixed: 37 and 256 have no common divisor
	}
	f.Add(every)
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3})                 // locking alone
	f.Add([]byte{16, 16, 16, 16, 17, 17, 17, 17})                     // unlocking alone
	f.Add([]byte{0, 16, 0, 16, 4, 20, 4, 20, 0, 16, 0, 16})           // two goroutines, one value
	f.Add([]byte{160, 0, 4, 160, 164, 16, 20, 0, 4, 8, 12})           // leases and tickets taken away
	f.Add([]byte{0, 4, 8, 176, 180, 0, 16, 1, 17, 80, 96, 112})       // a Session closed in the middle
	f.Add([]byte{80, 81, 84, 85, 96, 97, 112, 113, 80, 96, 100, 112}) // elections
	client := fuzzClient(f)
	var inputs atomic.Int64 // each has names of its own
	f.Fuzz(func(t *testing.T, calls []byte) {
		if len(calls) > 512 {
			return
		}
		a := newArena(t, client, fmt.Sprintf("fuzz/%d", inputs.Add(1)))
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := g; i < len(calls) && !t.Failed(); i += 4 {
					a.call(calls[i])
				}
			})
		}
		wg.Wait()
		a.end()
	})
}

// arena is what the calls of one input share.
type arena struct {
	t        *testing.T
	client   *clientv3.Client
	name     string
	sessions []*etcdlock.Session
	mutexes  []*etcdlock.Mutex
	leaders  []*etcdlock.Election
	tampered atomic.Bool // a ticket or lease was taken away: for a while two may believe, until they are told

	mu   sync.Mutex
	last int64 // the highest token seen held
}

func newArena(t *testing.T, client *clientv3.Client, name string) *arena {
	t.Helper()
	a := &arena{t: t, client: client, name: name}
	for range 2 {
		a.sessions = append(a.sessions, newSession(t, client, etcdlock.WithTTL(2*time.Second)))
	}
	for i := range 3 {
		a.mutexes = append(a.mutexes, etcdlock.NewMutex(a.sessions[i%2], name+"/m"))
	}
	for i := range 2 {
		a.leaders = append(a.leaders, etcdlock.NewElection(a.sessions[i], name+"/e"))
	}
	return a
}

// call makes the call that b stands for: the high half is what, the low half on what, and how patiently.
func (a *arena) call(b byte) {
	limit := []time.Duration{0, 2 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond}[b>>2&3]
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	m, e := a.mutexes[int(b)%3], a.leaders[int(b)%2]
	var err error
	switch b >> 4 {
	case 0, 2:
		err = m.Lock(ctx)
	case 1, 3:
		err = m.Unlock(ctx)
	case 4:
		err = m.TryLock(ctx)
	case 5:
		err = e.Campaign(ctx, "v")
	case 6:
		err = e.Resign(ctx)
	case 7:
		err = e.Proclaim(ctx, "w")
	case 8:
		err = m.Do(ctx, func(work context.Context) error { a.inside(m, work); return nil })
	case 9:
		err = errors.Join(m.Verify(ctx), e.Verify(ctx))
	case 10:
		a.tamper(b)
	case 11:
		if b&0xf == 0 {
			err = a.sessions[1].Close()
		}
	case 12:
		_, err = m.Holder(ctx)
	case 13:
		_, err = e.Leader(ctx)
	case 14:
		_, _ = a.client.Txn(ctx).If(m.IsOwner(), e.IsOwner()).Commit() // a guard given out rules out handoff in memory
	case 15:
		rctx, cancel := context.WithTimeout(ctx, limit/2)
		err = e.Run(rctx, "r", func(context.Context) error { return nil })
		cancel()
	}
	assert.True(a.t, documented(err), "call %#x: %v", b, err)
	a.invariants()
}

// inside runs under Do: nobody else holds.
func (a *arena) inside(m *etcdlock.Mutex, work context.Context) {
	for _, o := range a.mutexes {
		// The question to the other comes before the one to work, which has gone on since before both.
		if o != m && o.Context().Err() == nil && work.Err() == nil && !a.tampered.Load() {
			assert.Fail(a.t, "two hold", "one of them under Do")
		}
	}
}

// tamper takes the first ticket away, or a lease.
func (a *arena) tamper(b byte) {
	a.tampered.Store(true)
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Second)
	defer cancel()
	if b&1 == 0 {
		_, _ = a.client.Revoke(ctx, a.sessions[0].Lease()) // which may be gone already
		return
	}
	if c, err := a.mutexes[0].Holder(ctx); err == nil {
		_, _ = a.client.Delete(ctx, c.Key)
	}
}

// invariants looks at all values at once. A hold that is seen with the same token before and after another was seen
// alive was held all the while: two such are two holders.
func (a *arena) invariants() {
	first := make([]int64, len(a.mutexes))
	alive := 0
	for i, m := range a.mutexes {
		if ctx := m.Context(); ctx.Err() == nil {
			first[i] = m.Token()
			alive++
		} else {
			assert.ErrorIs(a.t, ctx.Err(), context.Canceled)
			cause := context.Cause(ctx)
			assert.True(a.t, errors.Is(cause, etcdlock.ErrLost) || errors.Is(cause, etcdlock.ErrClosed) ||
				errors.Is(cause, etcdlock.ErrNotHeld), "cause %v", cause)
		}
	}
	if alive > 1 && !a.tampered.Load() {
		both := 0
		for i, m := range a.mutexes {
			if first[i] != 0 && m.Context().Err() == nil && m.Token() == first[i] {
				both++
			}
		}
		// Whatever was alive in the first look and still is with the same token in the second was held between them.
		assert.True(a.t, both <= 1 || a.tampered.Load(), "%d hold at once: tokens %v", both, first)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, token := range first {
		a.last = max(a.last, token)
	}
}

// end releases everything: then nothing is left, and the next token is higher than all before.
func (a *arena) end() {
	for _, m := range a.mutexes {
		err := m.Unlock(soon(a.t))
		assert.True(a.t, documented(err), "%v", err)
		require.Zero(a.t, m.Token())
		require.Error(a.t, m.Context().Err())
		require.Empty(a.t, m.Key())
	}
	for _, e := range a.leaders {
		err := e.Resign(soon(a.t))
		assert.True(a.t, documented(err), "%v", err)
		require.Zero(a.t, e.Token())
	}
	nothingUnder(a.t, a.client, a.name+"/")
	require.NoError(a.t, a.mutexes[0].Lock(soon(a.t)), "the Session has healed")
	assert.Greater(a.t, a.mutexes[0].Token(), a.last)
	require.NoError(a.t, a.mutexes[0].Unlock(soon(a.t)))
}
