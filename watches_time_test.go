package etcdlock

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is read beside a watch that opens is as of before it has opened, perhaps: what happens in between is read, too, also where
// somebody has gone by then.
func TestTimeWhatHappensBetweenAReadAndItsWatchIsRead(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "between")
		require.NoError(t, holder.Lock(t.Context()))
		second, _ := lock(t.Context(), t, e, "between")
		before := queued(t, second.s, "between")
		third, got := NewMutex(e.session(t, WithTTL(time.Hour)), "between"), make(chan error, 1)
		e.bends(func(call string) fault {
			if call == "read" && e.has(before) {
				e.remove(before) // the second goes before the read, and the first after it, before its watch is open
				time.AfterFunc(5*time.Millisecond, func() { e.remove(holder.Key()) })
				return fault{after: 100 * time.Millisecond}
			}
			return fault{late: 10 * time.Millisecond}
		})
		go func() { got <- third.Lock(t.Context()) }()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, got, 1)
		require.NoError(t, <-got)
	})
}

// What the watch on one of two tells while the read is under way says nothing of the other.
func TestTimeAReadBesideAWatchIsWaitedForBehindTwo(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "both")
		require.NoError(t, holder.Lock(t.Context()))
		second, _ := lock(t.Context(), t, e, "both")
		before := queued(t, second.s, "both")
		third, got := NewMutex(e.session(t, WithTTL(time.Hour)), "both"), make(chan error, 1)
		e.bends(func(call string) fault {
			return map[string]fault{"write": {after: 10 * time.Millisecond}, "read": {after: 100 * time.Millisecond}}[call]
		})
		go func() { got <- third.Lock(t.Context()) }()
		synctest.Wait()
		e.remove(before)
		time.Sleep(20 * time.Millisecond)
		e.remove(holder.Key())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, got, 1)
		require.NoError(t, <-got)
	})
}

// A read that is not answered keeps nothing from who is told.
func TestTimeAWatchTellsAlsoWhereTheReadBesideItIsNotAnswered(t *testing.T) {
	for what, c := range map[string]struct{ behindTwo, moves bool }{
		"nothing happens meanwhile": {}, "the store moves on": {moves: true}, "behind two": {behindTwo: true},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				holder := NewMutex(e.session(t, WithTTL(time.Hour)), "unanswered")
				require.NoError(t, holder.Lock(t.Context()))
				if c.behindTwo {
					second, _ := lock(t.Context(), t, e, "unanswered")
					before := queued(t, second.s, "unanswered")
					time.AfterFunc(50*time.Millisecond, func() { e.remove(before) })
				}
				next, got := NewMutex(e.session(t, WithTTL(time.Hour)), "unanswered"), make(chan error, 1)
				e.bends(func(call string) fault { return fault{lost: call == "read", after: 10 * time.Millisecond} })
				go func() { got <- next.Lock(t.Context()) }()
				synctest.Wait()
				if c.moves {
					e.Put("other", "", 0)
				}
				time.Sleep(100 * time.Millisecond)
				e.remove(holder.Key())
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				require.Len(t, got, 1)
				require.NoError(t, <-got)
			})
		})
	}
}

// Whoever waits for ever new names keeps few watches.
func TestTimeOfManyNamesFewWatchesAreKept(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		before, after := e.session(t, WithTTL(time.Hour)), e.session(t, WithTTL(time.Hour))
		for n := range 200 {
			holder, got := NewMutex(before, fmt.Sprint("many", n)), make(chan error, 1)
			require.NoError(t, holder.Lock(t.Context()))
			go func() { got <- NewMutex(after, holder.Name()).Lock(t.Context()) }()
			synctest.Wait()
			require.NoError(t, holder.Unlock(t.Context()))
			require.NoError(t, <-got)
		}
		synctest.Wait()
		require.Less(t, e.Watches(), 100)
	})
}
