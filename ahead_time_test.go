package etcdlock

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// What a waiter concludes of who was ahead of it, in fake time, without asking.

// lock has a session of its own wait for name. It is queued when lock returns.
func lock(ctx context.Context, t *testing.T, e *etcd, name string) (m *Mutex, got chan error) {
	t.Helper()
	m, got = NewMutex(e.session(t, WithTTL(time.Hour)), name), make(chan error, 1)
	go func() { got <- m.Lock(ctx) }()
	queued(t, m.s, name)
	return m, got
}

func TestTimeBehindTwoNothingIsAskedWhenTheyGo(t *testing.T) {
	for what, take := range map[string]func(context.Context, *RWMutex) error{
		"a mutex":  func(ctx context.Context, m *RWMutex) error { return m.Lock(ctx) },
		"a reader": func(ctx context.Context, m *RWMutex) error { _, err := m.RLock(ctx); return err },
	} {
		for order, turns := range map[string]bool{"the first one first": true, "the second gives up": false} {
			t.Run(what+", "+order, func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *etcd) {
					first := NewMutex(e.session(t, WithTTL(time.Hour)), "two")
					require.NoError(t, first.Lock(t.Context()))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					second, next := lock(ctx, t, e, "two")
					third, got := NewRWMutex(e.session(t, WithTTL(time.Hour)), "two"), make(chan error, 1)
					go func() { got <- take(t.Context(), third) }()
					queued(t, third.s, "two")
					reads := e.count("read")
					if turns {
						require.NoError(t, first.Unlock(t.Context()))
						require.NoError(t, <-next)
						require.NoError(t, second.Unlock(t.Context()))
					} else {
						cancel()
						require.ErrorIs(t, <-next, context.Canceled)
						synctest.Wait()
						require.Empty(t, got)
						require.NoError(t, first.Unlock(t.Context()))
					}
					require.NoError(t, <-got)
					require.Equal(t, reads, e.count("read"))
				})
			})
		}
	}
}

// The deletions of the two may be told in either order. The hold is checked as of the newer one, in which the own ticket may
// have gone, too.
func TestTimeBehindTwoTheHoldIsCheckedAsOfTheNewestDeletion(t *testing.T) {
	for range 20 {
		inBubble(t, func(t *testing.T, e *etcd) {
			first := NewMutex(e.session(t, WithTTL(time.Hour)), "phantom")
			require.NoError(t, first.Lock(t.Context()))
			_, next := lock(t.Context(), t, e, "phantom")
			third, got := lock(t.Context(), t, e, "phantom")
			e.DelayStreams(0, time.Millisecond)
			require.NoError(t, first.Unlock(t.Context()))
			e.DeletePrefix("phantom/")
			require.NoError(t, <-next)
			require.NoError(t, <-got)
			held, key := third.Context(), third.Key()
			time.Sleep(queue.CheckAfter)
			synctest.Wait()
			require.Equal(t, e.has(key), held.Err() == nil, "it may have noticed while it waited, and have queued again")
		})
	}
}

// When near goes and far is near now, far is watched already.
func TestTimeWhoeverIsNextAfterAWaiterThatGaveUpIsWatchedAlready(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "swap")
		require.NoError(t, holder.Lock(t.Context()))
		for range 3 {
			lock(t.Context(), t, e, "swap")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, before := lock(ctx, t, e, "swap")
		_, got := lock(t.Context(), t, e, "swap")
		watches := e.count("watch")
		cancel()
		require.ErrorIs(t, <-before, context.Canceled)
		synctest.Wait()
		require.Empty(t, got)
		require.Equal(t, watches+1, e.count("watch"), "of the one before that")
	})
}

// Whoever is behind more than two knows only these.
func TestTimeBehindManyAllAreWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "many")
		require.NoError(t, holder.Lock(t.Context()))
		var quits []context.CancelFunc
		var left []chan error
		for range 4 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, got := lock(ctx, t, e, "many")
			quits, left = append(quits, cancel), append(left, got)
		}
		_, got := lock(t.Context(), t, e, "many")
		for i := len(quits) - 1; i >= 0; i-- {
			quits[i]()
			require.ErrorIs(t, <-left[i], context.Canceled)
			synctest.Wait()
			require.Empty(t, got)
		}
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, <-got)
	})
}

// Who deletes a whole queue lets its first waiter hold until the check. The second has seen two go in one revision, and looks.
func TestTimeWhereAWholeQueueIsDeletedOneHoldsUntilItsCheck(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		first := NewMutex(e.session(t, WithTTL(time.Hour)), "whole")
		require.NoError(t, first.Lock(t.Context()))
		second, next := lock(t.Context(), t, e, "whole")
		third, got := lock(t.Context(), t, e, "whole")
		e.DeletePrefix("whole/")
		require.NoError(t, <-next)
		synctest.Wait()
		if len(got) > 0 {
			require.True(t, e.has(third.Key()), "it has queued again, and the second with it")
		}
		time.Sleep(queue.CheckAfter)
		require.ErrorIs(t, second.Unlock(t.Context()), ErrLost)
		require.NoError(t, <-got)
		require.True(t, e.has(third.Key()))
	})
}

// Clients that take turns wait for the same keys again and again: what they watch stays watched from one wait to the next.
func TestTimeTurnsOpenNoWatches(t *testing.T) {
	for n, reads := range map[int]int{2: 0, 3: 0, 8: 1} { // for one turn
		inBubble(t, func(t *testing.T, e *etcd) {
			holder := NewMutex(e.session(t, WithTTL(time.Hour)), "turns")
			require.NoError(t, holder.Lock(t.Context()))
			var queue []chan error
			var of []*Mutex
			for range n - 1 {
				m, got := lock(t.Context(), t, e, "turns")
				queue, of = append(queue, got), append(of, m)
			}
			turn := func() {
				require.NoError(t, holder.Unlock(t.Context()))
				m, got := holder, make(chan error, 1)
				go func() { got <- m.Lock(t.Context()) }()
				synctest.Wait()
				require.NoError(t, <-queue[0])
				holder, queue, of = of[0], append(queue[1:], got), append(of[1:], m)
			}
			for range 2 * n {
				turn()
			}
			read, watch, wrote := e.count("read"), e.count("watch"), e.count("write")
			for range 10 * n {
				turn()
			}
			require.Equal(t, watch, e.count("watch"), n)
			require.Equal(t, wrote+2*10*n, e.count("write"), n)
			require.Equal(t, read+reads*10*n, e.count("read"), n)
		})
	}
}

// A watch is kept for a moment only, and not past the Session's end.
func TestTimeAWatchIsKeptForAMoment(t *testing.T) {
	for what, closes := range map[string]bool{"of a Session that goes on": false, "of one that ends": true} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				holder := NewMutex(e.session(t, WithTTL(time.Hour)), "kept")
				require.NoError(t, holder.Lock(t.Context()))
				s, err := NewSession(t.Context(), holder.s.client.Client, WithTTL(time.Hour)) // one client, which goes on
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				next, got := NewMutex(s, "kept"), make(chan error, 1)
				go func() { got <- next.Lock(t.Context()) }()
				queued(t, s, "kept")
				require.NoError(t, holder.Unlock(t.Context()))
				require.NoError(t, <-got)
				synctest.Wait()
				open := e.Watches()
				if closes {
					require.NoError(t, s.Close())
				} else {
					require.NoError(t, next.Unlock(t.Context()))
					time.Sleep(time.Second - time.Millisecond)
					synctest.Wait()
					require.Equal(t, open, e.Watches())
					time.Sleep(time.Millisecond)
				}
				synctest.Wait()
				require.Less(t, e.Watches(), open)
			})
		})
	}
}

// A release is told to few who do not wait: of a name, the watches of the last wait are kept.
func TestTimeAReleaseIsToldToFewWhoDoNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, err := NewSession(t.Context(), e.session(t, WithTTL(time.Hour)).client.Client, WithTTL(time.Hour))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		turn := func() {
			holder := NewMutex(e.session(t, WithTTL(time.Hour)), "few")
			require.NoError(t, holder.Lock(t.Context()))
			m, got := NewMutex(s, "few"), make(chan error, 1)
			go func() { got <- m.Lock(t.Context()) }()
			queued(t, s, "few")
			require.NoError(t, holder.Unlock(t.Context()))
			require.NoError(t, <-got)
			require.NoError(t, m.Unlock(t.Context()))
			synctest.Wait()
		}
		turn()
		turn()
		open := e.Watches()
		for range 8 {
			turn()
		}
		require.Equal(t, open, e.Watches())
	})
}

// What a watch has told to one waiter, it does not tell to the next one that takes it over: that one reads it.
func TestTimeWhatAKeptWatchHasToldIsRead(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		writer, m := NewMutex(e.session(t, WithTTL(time.Hour)), "told"), NewRWMutex(e.session(t, WithTTL(time.Hour)), "told")
		require.NoError(t, writer.Lock(t.Context()))
		read := func() chan error {
			got := make(chan error, 1)
			go func() {
				_, err := m.RLock(t.Context())
				got <- err
			}()
			synctest.Wait()
			return got
		}
		first := read()
		e.only("write", fault{after: 10 * time.Millisecond})
		second := read()
		require.NoError(t, writer.Unlock(t.Context()))
		require.NoError(t, <-first)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		require.Len(t, second, 1, "its answer was late, and the watch was there already")
		require.NoError(t, <-second)
	})
}

// Who queues while the lock is released learns it by the answer after that to its put. Here each takes 100 ms.
func TestTimeAReleaseWhileAWatchOpensIsReadAtTheSameTime(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder, m := NewMutex(e.session(t, WithTTL(time.Hour)), "beside"), NewMutex(e.session(t, WithTTL(time.Hour)), "beside")
		require.NoError(t, holder.Lock(t.Context()))
		reads, writes := e.count("read"), e.count("write")
		e.bends(func(call string) fault { return fault{after: time.Second / 10, lost: call == "watch"} }) // it need not even open
		began, got := time.Now(), make(chan error, 2)
		go func() { got <- m.Lock(t.Context()) }()
		time.Sleep(time.Second / 20)
		go func() { got <- holder.Unlock(t.Context()) }()
		require.NoError(t, <-got)
		require.NoError(t, <-got)
		require.Equal(t, 2*time.Second/10, time.Since(began))
		require.Equal(t, []int{reads + 1, writes + 2}, []int{e.count("read"), e.count("write")})
	})
}

// Where nobody goes, it is one read, as it is where the two are sent one after the other.
func TestTimeAWaiterReadsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "once")
		require.NoError(t, holder.Lock(t.Context()))
		for n := range 4 {
			m := NewMutex(e.session(t, WithTTL(time.Hour)), "once")
			reads := e.count("read")
			e.only("write", fault{after: 10 * time.Millisecond})
			go func() { _ = m.Lock(t.Context()) }()
			synctest.Wait()
			e.Put("other", "", 0) // what is read is as of later than the put
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			require.Equal(t, reads+1, e.count("read"), n)
			e.bends(nil)
		}
	})
}

// In a crowd that moves, what is read before the watch is open would be too old.
func TestTimeWhoeverIsFarBackReadsOnceItsWatchesAreOpen(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "back")
		require.NoError(t, holder.Lock(t.Context()))
		lock(t.Context(), t, e, "back")
		lock(t.Context(), t, e, "back")
		m := NewMutex(e.session(t, WithTTL(time.Hour)), "back")
		reads := e.count("read")
		e.only("watch", fault{late: 10 * time.Millisecond})
		go func() { _ = m.Lock(t.Context()) }()
		time.Sleep(25 * time.Millisecond) // one is open, and the one that keeps the stream open
		e.Put("other", "", 0)
		time.Sleep(15 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, reads+1, e.count("read"))
	})
}

// A key of the Session's own that no ticket knows is a request that came late. It is in the way until it is swept.
func TestTimeAStrayAheadIsWaitedFor(t *testing.T) {
	for _, how := range []string{"behind one that gives up", "while the own put is answered"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(time.Hour))
				e.only("write", fault{lost: true})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.ErrorIs(t, NewMutex(s, "stray").Lock(ctx), context.DeadlineExceeded)
				e.bends(nil)
				time.Sleep(time.Minute) // until the clean-up is confirmed
				e.Put(fmt.Sprintf("stray/%x-1", int64(s.Lease())), "late", int64(s.Lease()))
				quits, goesOn := make(chan error, 1), make(chan error, 1)
				ctx, cancel = context.WithCancel(t.Context())
				defer cancel()
				quit := func() { quits <- NewMutex(s, "stray").Lock(ctx) }
				goOn := func() { goesOn <- NewMutex(s, "stray").Lock(t.Context()) }
				first, second := quit, goOn
				if how == "while the own put is answered" { // so that a deletion is newer than what it has seen
					first, second = goOn, quit
					e.only("write", fault{after: 100 * time.Millisecond})
				}
				go first()
				synctest.Wait()
				e.bends(nil)
				go second()
				synctest.Wait()
				require.Len(t, e.Keys("stray/"), 3)
				cancel()
				require.ErrorIs(t, <-quits, context.Canceled)
				time.Sleep(time.Second)
				require.Empty(t, goesOn)
				require.NoError(t, <-goesOn, "it is swept beside a renewal")
			})
		})
	}
}
