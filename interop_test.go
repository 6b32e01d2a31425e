package etcdlock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock"
)

// TestAMixedFleet has ours and everything of etcd's own contend for the same names.
func TestAMixedFleet(t *testing.T) {
	f := newFleet(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	t.Run("takes the lock in order", func(t *testing.T) { inOrder(t, f, seed, lockKinds()) })
	t.Run("readers and writers in phases", func(t *testing.T) { inPhases(t, f, seed) })
	t.Run("readers and writers at random", func(t *testing.T) { atRandom(t, f, seed, append(lockKinds(), readerKinds()...), nil) })
	t.Run("leads in order", func(t *testing.T) { inOrder(t, f, seed, electionKinds()) })
	t.Run("excludes each other from the lock at random", func(t *testing.T) { atRandom(t, f, seed, lockKinds(), nil) })
	t.Run("leads one at a time, at random, as Observe tells", func(t *testing.T) {
		s := newSession(t, f.client)
		name := t.Name()
		told := make(chan etcdlock.Leader, 10_000)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for l, err := range etcdlock.NewElection(s, name).Observe(ctx) {
				if err == nil && l.Token != 0 {
					told <- l
				}
			}
		}()
		first := etcdlock.NewElection(s, name)
		require.NoError(t, first.Campaign(soon(t), "first"))
		<-told // it watches
		require.NoError(t, first.Resign(soon(t)))
		led := atRandom(t, f, seed, electionKinds(), &name)
		seen, last := []string{}, led[len(led)-1]
		for len(seen) == 0 || seen[len(seen)-1] != last {
			select {
			case l := <-told:
				if len(seen) == 0 || seen[len(seen)-1] != ticket(l.Key, l.Token) {
					seen = append(seen, ticket(l.Key, l.Token))
				}
			case <-soon(t).Done():
				require.Fail(t, "Observe has not told all")
			}
		}
		cancel()
		<-done
		assert.Subset(t, seen, led, "everyone that led was seen")
		assert.Equal(t, led, intersect(seen, led), "in the order in which they led")
	})
	t.Run("each sees the other's hold", func(t *testing.T) { eachSeesTheHold(t, f) })
	t.Run("each sees the other's leader and value", func(t *testing.T) { eachSeesTheLeader(t, f) })
	t.Run("a crashed etcdctl is stepped over", func(t *testing.T) { crashed(t, f) })
	t.Run("nested names as old clients see them", func(t *testing.T) { nested(t, f) })
}

// ticket names one hold: concurrency uses a key again.
func ticket(key string, token int64) string { return fmt.Sprintf("%s@%d", key, token) }

// intersect returns what of a is in b, in the order of a.
func intersect(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

// inOrder lets contenders queue one after another, in a random order, and looks in which order they hold.
func inOrder(t *testing.T, f *fleet, seed uint64, kinds []maker) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	name := t.Name()
	var all []*contender
	for i := range 2 * len(kinds) {
		all = append(all, kinds[i%len(kinds)](t, f, name, fmt.Sprint("in-order-", i)))
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	_, err := all[0].take(soon(t))
	require.NoError(t, err)
	w := &witness{f: f, name: name}
	var wg sync.WaitGroup
	var queued, held []string
	for i, c := range all[1:] {
		id := fmt.Sprint(i, " ", c.kind)
		queued = append(queued, id)
		wg.Go(func() {
			key, err := c.take(soon(t))
			if !assert.NoError(t, err, id) {
				return
			}
			w.enter(t, c.kind, key, func() { held = append(held, id) })
			assert.NoError(t, c.give(soon(t)), id)
		})
		eventually(t, func() bool { return len(keysUnder(t, f.client, name+"/")) == i+2 }, "%s queues", id)
	}
	require.NoError(t, all[0].give(soon(t)))
	wg.Wait()
	assert.Equal(t, queued, held)
	assert.Empty(t, keysUnder(t, f.client, name+"/"))
}

// witness checks, for every hold, that nobody else holds and that its ticket is the first.
type witness struct {
	f    *fleet
	name string

	mu      sync.Mutex
	inside  string // who holds; of readers, the last that came
	readers int    // of those inside
	last    int64  // the greatest token
	alone   int64  // the greatest that shares with nobody
	held    []string
}

// enter is called by a contender that holds, before it lets go.
func (w *witness) enter(t *testing.T, kind, key string, inside func()) {
	t.Helper()
	reads := strings.HasPrefix(kind, "reader")
	w.mu.Lock()
	if reads {
		assert.True(t, w.inside == "" || w.readers > 0, "%s holds beside %s", kind, w.inside)
		w.readers++
	} else {
		assert.Empty(t, w.inside, "%s holds beside another", kind)
	}
	w.inside = kind
	w.mu.Unlock()
	resp, err := w.f.client.Get(soon(t), w.name+"/", clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if !assert.NoError(t, err) {
		return
	}
	mine := slices.IndexFunc(resp.Kvs, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == key })
	if assert.NotEqual(t, -1, mine, "%s holds with a ticket", kind) {
		for _, kv := range resp.Kvs[:mine] {
			if reads && strings.HasPrefix(string(kv.Key), w.name+"/read-") {
				continue
			}
			// The Session that hands over in memory deletes the released ticket a moment later.
			assert.Equal(t, resp.Kvs[mine].Lease, kv.Lease, "%s holds behind %s, a ticket of another's", kind, kv.Key)
		}
		token := resp.Kvs[mine].CreateRevision
		w.mu.Lock()
		if reads {
			assert.Greater(t, token, w.alone, "the tokens grow")
		} else {
			assert.Greater(t, token, w.last, "the tokens grow")
			w.alone = token
		}
		w.last = max(w.last, token)
		w.held = append(w.held, ticket(key, token))
		w.mu.Unlock()
	}
	inside()
	w.mu.Lock()
	if reads {
		w.readers--
	}
	if w.readers == 0 {
		w.inside = ""
	}
	w.mu.Unlock()
}

// inPhases lets readers and writers queue one after another, in a random order, and looks that all readers between two
// writers hold together, each phase after the other.
func inPhases(t *testing.T, f *fleet, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	name := t.Name()
	var all []*contender
	for i, kind := range append(slices.Repeat(readerKinds(), 4), lockKinds()...) {
		all = append(all, kind(t, f, name, fmt.Sprint("in-phases-", i)))
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	first := ourMutex(t, f, name, "first")
	_, err := first.take(soon(t))
	require.NoError(t, err)
	var phases []*sync.WaitGroup // until all of a phase hold
	for i, c := range all {
		if i == 0 || !c.reads || !all[i-1].reads {
			phases = append(phases, new(sync.WaitGroup))
		}
		phases[len(phases)-1].Add(1)
	}
	w := &witness{f: f, name: name}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var order []int
	phase := -1
	for i, c := range all {
		if i == 0 || !c.reads || !all[i-1].reads {
			phase++
		}
		mine := phase
		wg.Go(func() {
			key, err := c.take(soon(t))
			if !assert.NoError(t, err, c.kind) {
				phases[mine].Done()
				return
			}
			w.enter(t, c.kind, key, func() {
				mu.Lock()
				order = append(order, mine)
				mu.Unlock()
				phases[mine].Done()
				phases[mine].Wait()
			})
			assert.NoError(t, c.give(soon(t)), c.kind)
		})
		eventually(t, func() bool { return len(keysUnder(t, f.client, name+"/")) == i+2 }, "%s queues", c.kind)
	}
	require.NoError(t, first.give(soon(t)))
	wg.Wait()
	assert.Len(t, order, len(all))
	assert.True(t, slices.IsSorted(order), "%v", order)
	assert.Empty(t, keysUnder(t, f.client, name+"/"))
}

// atRandom has two of each kind take the name, some of them trying only and some losing patience, and returns the
// holds in their order.
func atRandom(t *testing.T, f *fleet, seed uint64, kinds []maker, name *string) []string {
	t.Helper()
	if name == nil {
		own := t.Name()
		name = &own
	}
	w := &witness{f: f, name: *name}
	var wg sync.WaitGroup
	for i := range 2 * len(kinds) {
		c := kinds[i%len(kinds)](t, f, *name, fmt.Sprint("at-random-", i))
		rng := rand.New(rand.NewPCG(seed, uint64(i)+2))
		rounds := 12
		if c.kind[0] == 'e' { // a process each
			rounds = 2
		}
		wg.Go(func() {
			for range rounds {
				ctx := soon(t)
				impatient, tries := !c.patient && rng.IntN(4) == 0, c.try != nil && rng.IntN(3) == 0
				if impatient {
					ctx = within(t, time.Duration(1+rng.IntN(30))*time.Millisecond)
				}
				take := c.take
				if tries {
					take = c.try
				}
				key, err := take(ctx)
				if err != nil {
					assert.True(t, impatient || tries, "%s: %v", c.kind, err)
					continue
				}
				w.enter(t, c.kind, key, func() {})
				assert.NoError(t, c.give(soon(t)), c.kind)
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { return len(keysUnder(t, f.client, *name+"/")) == 0 }, "nothing is left behind")
	assert.Greater(t, len(w.held), len(kinds))
	t.Logf("%d holds", len(w.held))
	return w.held
}

// eachSeesTheHold has each kind hold in turn, and the others find it.
func eachSeesTheHold(t *testing.T, f *fleet) {
	t.Helper()
	name := t.Name()
	ours := etcdlock.NewMutex(newSession(t, f.client), name)
	theirs := concurrency.NewMutex(oldSession(t, f), name)
	for _, kind := range append(lockKinds(), electionKinds()...) {
		c := kind(t, f, name, "me")
		key, err := c.take(soon(t))
		require.NoError(t, err, c.kind)
		holder, err := ours.Holder(soon(t))
		require.NoError(t, err, c.kind)
		assert.Equal(t, key, holder.Key, c.kind)
		assert.NotZero(t, holder.Lease, c.kind)
		for _, err := range []error{ours.TryLock(soon(t)), ours.Lock(within(t, 150*time.Millisecond))} {
			var by *etcdlock.LockedError
			require.ErrorAs(t, err, &by, c.kind)
			assert.Equal(t, etcdlock.LockedError{Name: name, Holder: holder.Identity, Token: holder.Token, Key: key}, *by, c.kind)
		}
		require.ErrorIs(t, theirs.TryLock(soon(t)), concurrency.ErrLocked, c.kind)
		require.ErrorIs(t, theirs.Lock(within(t, 50*time.Millisecond)), context.DeadlineExceeded, c.kind)
		require.NoError(t, c.give(soon(t)), c.kind)
	}
}

// crashed kills a waiting and a holding etcdctl: both are stepped over when their leases end.
func crashed(t *testing.T, f *fleet) {
	t.Helper()
	name := t.Name()
	holds, lines := f.start(t, "lock", name, "--ttl", "2")
	require.True(t, lines.Scan())
	waits, _ := f.start(t, "lock", name, "--ttl", "2")
	ours := etcdlock.NewMutex(newSession(t, f.client), name)
	waiters(t, ours, 1)
	got := make(chan error, 1)
	go func() { got <- ours.Lock(soon(t)) }()
	waiters(t, ours, 2)
	require.NoError(t, waits.Process.Kill())
	require.NoError(t, holds.Process.Kill())
	start := time.Now()
	require.NoError(t, <-got)
	assert.Less(t, time.Since(start), 5*time.Second)
	assert.Equal(t, []string{ours.Key()}, keysUnder(t, f.client, name+"/"))
	require.NoError(t, ours.Unlock(soon(t)))
}

// nested: a name within a name is another lock for ours, whoever holds it, while old clients wait for both.
func nested(t *testing.T, f *fleet) {
	t.Helper()
	outer, inner := t.Name(), t.Name()+"/b"
	ours, oursInner := etcdlock.NewMutex(newSession(t, f.client), outer), etcdlock.NewMutex(newSession(t, f.client), inner)
	theirs, theirsInner := concurrency.NewMutex(oldSession(t, f), outer), concurrency.NewMutex(oldSession(t, f), inner)

	require.NoError(t, theirsInner.Lock(soon(t)))
	require.NoError(t, ours.Lock(soon(t)), "ours steps over theirs")
	require.NoError(t, ours.Unlock(soon(t)))
	require.NoError(t, ours.TryLock(soon(t)))
	require.NoError(t, ours.Unlock(soon(t)))
	require.NoError(t, theirsInner.Unlock(soon(t)))

	require.NoError(t, oursInner.Lock(soon(t)))
	require.ErrorIs(t, theirs.TryLock(soon(t)), concurrency.ErrLocked, "theirs waits for ours")
	got := make(chan error, 1)
	go func() { got <- theirs.Lock(soon(t)) }()
	eventually(t, func() bool { return len(keysUnder(t, f.client, outer+"/")) == 2 }, "theirs queues")
	require.ErrorIs(t, ours.TryLock(soon(t)), etcdlock.ErrLocked, "a ticket that waits for a nested name is in the queue of its own")
	require.NoError(t, oursInner.Unlock(soon(t)))
	require.NoError(t, <-got)
	require.NoError(t, theirs.Unlock(soon(t)))
}
