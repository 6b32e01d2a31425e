package etcdlock

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// Tickets of all classes in one queue, of several Sessions, with foreign keys put by hand and faults on the way.

var mixedKinds = []*queue.Kind{
	mutexKind.ticket,
	{Class: queue.Exclusive, Weight: 1, Released: ErrNotLeader}, // an Election's, which would refuse the others
	{Class: queue.Reader, Weight: 1, Released: ErrNotHeld},
	{Class: queue.Reader, Weight: 1, Released: ErrNotHeld, Handoff: true},
	{Class: queue.Of(2), Weight: 1, Released: ErrNotHeld},
	{Class: queue.Of(3), Weight: 1, Released: ErrNotHeld},
	{Class: queue.Of(3), Weight: 2, Released: ErrNotHeld},
}

var permitKinds = []*queue.Kind{
	{Class: queue.Of(3), Weight: 1, Released: ErrNotHeld},
	{Class: queue.Of(3), Weight: 1, Released: ErrNotHeld},
	{Class: queue.Of(3), Weight: 2, Released: ErrNotHeld},
	{Class: queue.Of(3), Weight: 3, Released: ErrNotHeld},
	{Class: queue.Of(5), Weight: 1, Released: ErrNotHeld},
	mutexKind.ticket,
}

// inOrder are the leaves of contenders in the order of their creation.
func inOrder(revs map[string]int64) (leaves []string) {
	keys := slices.SortedFunc(maps.Keys(revs), func(a, b string) int { return int(revs[a] - revs[b]) })
	for _, key := range keys {
		leaves = append(leaves, strings.TrimPrefix(key, "a/"))
	}
	return leaves
}

// direct are the contenders of the name in the store, by key.
func direct(etcd *memetcd.Server, upTo int64) map[string]int64 {
	revs := map[string]int64{}
	for _, kv := range etcd.Keys("a/") {
		if !strings.Contains(string(kv.Key)[2:], "/") && kv.CreateRevision <= upTo {
			revs[string(kv.Key)] = kv.CreateRevision
		}
	}
	return revs
}

func mixed(t *testing.T, seed uint64, kinds []*queue.Kind, try bool) (bad []string) {
	t.Helper()
	bubble(t, awake, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 1))
		etcd := memetcd.New(memetcd.Config{Members: 1 + r.IntN(3), MaxTxnOps: []int{128, 4, 5}[r.IntN(3)]})
		var mu sync.Mutex
		jr := rand.New(rand.NewPCG(seed, 2))
		faulty, lingers := r.IntN(2) == 0, false
		type on struct {
			kind *queue.Kind
			tk   *queue.Ticket
		}
		active := map[*queue.Ticket]on{}
		say := func(f string, a ...any) { bad = append(bad, fmt.Sprintf(f, a...)) }
		var sessions []*Session
		var cancels []context.CancelFunc
		defer func() {
			for _, s := range sessions {
				_ = s.Close()
			}
			for _, c := range cancels {
				c()
			}
			etcd.Close()
			time.Sleep(time.Minute)
		}()
		for i := range 2 + r.IntN(2) {
			ctx, cancel := context.WithCancel(context.Background())
			cancels = append(cancels, cancel)
			var opts []Option
			if r.IntN(4) == 0 {
				opts, lingers = append(opts, WithLinger(300*time.Millisecond)), true
			}
			s, err := NewSession(ctx, etcd.Client(ctx), append(opts, WithTTL(5*time.Second), WithIdentity(fmt.Sprint("s", i)))...)
			if err != nil {
				return
			}
			sessions = append(sessions, s)
		}
		if faulty {
			etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
				mu.Lock()
				defer mu.Unlock()
				switch n := jr.IntN(30); n {
				case 0:
					v.AnswerLost = true
				case 1:
					v.Delay = time.Duration(jr.IntN(800)) * time.Millisecond
				case 2:
					v.Lost = true
				case 3:
					v.AnswerDelay = time.Duration(jr.IntN(800)) * time.Millisecond
				}
				return v
			})
		}
		var wg sync.WaitGroup
		for i := range 4 + r.IntN(6) {
			s, own := sessions[r.IntN(len(sessions))], rand.New(rand.NewPCG(seed, uint64(10+i)))
			wg.Go(func() {
				var seen queue.Seen
				for range 6 {
					time.Sleep(time.Duration(own.IntN(300)) * time.Millisecond)
					k := kinds[own.IntN(len(kinds))]
					limit, patient := time.Minute, true
					if own.IntN(4) == 0 {
						limit, patient = time.Duration(own.IntN(300))*time.Millisecond, false
					}
					ctx, cancel := context.WithTimeout(context.Background(), limit)
					var tk *queue.Ticket
					var err error
					if try && own.IntN(3) == 0 {
						var by *queue.Contender
						patient = false
						tk, by, _, err = s.tickets.Try(ctx, k, "a", []string{"a"}, s.opts.identity, &seen)
						if err == nil && by != nil {
							err = ErrLocked
						}
					} else {
						tk, _, _, err = s.tickets.Acquire(ctx, k, "a", []string{"a"}, s.opts.identity)
					}
					cancel()
					if err != nil {
						if patient {
							mu.Lock()
							say("stuck: %v %v", k.Class, err)
							mu.Unlock()
						}
						continue
					}
					mu.Lock()
					if tk.Hold().Err() == nil {
						together := map[string]int64{tk.Key(): tk.Token()}
						for o := range active {
							if o.Hold().Err() == nil {
								together[o.Key()] = o.Token()
							}
						}
						if all := inOrder(together); queue.Holders(all) < len(all) {
							say("these hold together: %q, faults: %v", all, faulty)
						}
						if all := inOrder(direct(etcd, tk.Token())); !k.Handoff && queue.Holders(all) < len(all) {
							say("%s holds behind %q", tk.Key(), all)
						}
						active[tk] = on{k, tk}
					}
					mu.Unlock()
					time.Sleep(time.Duration(own.IntN(100)) * time.Millisecond)
					mu.Lock()
					delete(active, tk)
					mu.Unlock()
					ctx, cancel = context.WithTimeout(context.Background(), 20*time.Second)
					_ = tk.Release(ctx, false)
					cancel()
				}
			})
		}
		over := make(chan struct{})
		var watching sync.WaitGroup
		if !faulty && !lingers {
			watching.Go(func() { // nobody waits who could hold
				for {
					select {
					case <-over:
						return
					case <-time.After(37 * time.Millisecond):
					}
					synctest.Wait()
					mu.Lock()
					held := map[string]bool{}
					for tk := range active {
						held[tk.Key()] = true
					}
					all := inOrder(direct(etcd, 1<<62))
					for _, leaf := range all[:queue.Holders(all)] {
						if key := "a/" + leaf; !held[key] && string(etcd.Key(key).Value) != "foreign" {
							say("%s could hold: %q", leaf, all)
						}
					}
					mu.Unlock()
				}
			})
		}
		own := rand.New(rand.NewPCG(seed, 3))
		for range own.IntN(6) {
			time.Sleep(time.Duration(own.IntN(400)) * time.Millisecond)
			key := []string{"a/read-by-hand", "a/of-3-x-1", "a/hand", "a/b/nested"}[own.IntN(4)]
			etcd.Put(key, "foreign", 0)
			time.Sleep(time.Duration(own.IntN(400)) * time.Millisecond)
			etcd.Delete(key)
		}
		wg.Wait()
		close(over)
		watching.Wait()
		etcd.Judge(nil)
		time.Sleep(20 * time.Second)
		if kvs := etcd.Keys("a/"); len(kvs) > 0 {
			say("left behind: %v", kvs)
		}
	})
	return bad
}

func TestTicketsOfAllClassesExcludeEachOtherAndAreNeverStuck(t *testing.T) {
	for seed := uint64(1); seed <= 500; seed++ {
		kinds := mixedKinds
		if seed%3 == 0 {
			kinds = permitKinds
		}
		require.Empty(t, mixed(t, seed, kinds, seed%2 == 0), "seed %d", seed)
	}
}

func TestNoMorePermitsHoldThanThereAre(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		n := 0
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, _, _, err := s.tickets.Acquire(ctx, &queue.Kind{Class: queue.Of(2), Weight: 1, Released: ErrNotHeld}, "a", []string{"a"}, "v")
			cancel()
			if err == nil {
				n++
			}
		}
		require.LessOrEqual(t, n, 2)
	})
}

func TestAReaderTriesBesideAReaderOfItsSession(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		reader := &queue.Kind{Class: queue.Reader, Weight: 1, Released: ErrNotHeld}
		_, _, _, err := s.tickets.Acquire(t.Context(), reader, "a", []string{"a"}, "v")
		require.NoError(t, err)
		var seen queue.Seen
		_, by, _, err := s.tickets.Try(t.Context(), reader, "a", []string{"a"}, "v", &seen)
		require.NoError(t, err)
		require.Nil(t, by)
	})
}
