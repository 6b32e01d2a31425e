package etcdlock

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// Whether somebody waits for a hold, in fake time on the etcd in memory.

// isWanted reports whether a channel of Wanted is closed, once everything has settled.
func isWanted(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	case <-time.After(100 * time.Millisecond):
		return false
	}
}

// behindIt runs a call that waits until the test is over.
func behindIt(t *testing.T, call func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = call(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	time.Sleep(100 * time.Millisecond)
}

func TestTimeAHoldIsWantedOnceSomebodyQueuesBehindIt(t *testing.T) {
	for what, own := range map[string]bool{"of another Session": false, "of its own": true} {
		t.Run(what, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				s, other := open(15*time.Second), open(15*time.Second)
				if own {
					other = s
				}
				m := NewMutex(s, "a")
				require.Nil(t, m.Wanted(), "nothing is held")
				require.NoError(t, m.Lock(t.Context()))
				wanted := m.Wanted()
				require.False(t, isWanted(wanted))
				require.ErrorIs(t, NewMutex(other, "a").TryLock(t.Context()), ErrLocked)
				require.NoError(t, NewMutex(other, "a/below").Lock(t.Context()))
				etcd.Put(m.Key(), "another value", int64(s.Lease()))
				require.False(t, isWanted(wanted), "a try, a name that nests, and another value")
				behindIt(t, NewMutex(other, "a").Lock)
				require.True(t, isWanted(wanted))
				require.True(t, isWanted(m.Wanted()), "asked again, it says so at once")
			})
		})
	}
	t.Run("before it asks", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			lead := NewElection(open(15*time.Second), "a")
			require.NoError(t, lead.Campaign(t.Context(), "x"))
			require.NoError(t, lead.Proclaim(t.Context(), "y"))
			require.False(t, isWanted(lead.Wanted()))
			candidate := NewElection(open(15*time.Second), "a")
			behindIt(t, func(ctx context.Context) error { return candidate.Campaign(ctx, "z") })
			require.True(t, isWanted(lead.Wanted()))
			require.NoError(t, lead.Resign(t.Context()))
			require.False(t, isWanted(candidate.Wanted()), "nobody is left")
		})
	})
}

func TestTimeOnlyWhoIsKeptWaitingWants(t *testing.T) {
	t.Run("a reader", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m := NewRWMutex(open(15*time.Second), "a")
			first, err := m.RLock(t.Context())
			require.NoError(t, err)
			wanted := first.Wanted()
			second, err := NewRWMutex(open(15*time.Second), "a").RLock(t.Context())
			require.NoError(t, err)
			require.False(t, isWanted(wanted), "another reader holds beside it")
			behindIt(t, NewRWMutex(open(15*time.Second), "a").Lock)
			require.True(t, isWanted(wanted))
			require.True(t, isWanted(second.Wanted()))
		})
	})
	t.Run("a permit", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			first, err := NewSemaphore(open(15*time.Second), "a", 3).Acquire(t.Context())
			require.NoError(t, err)
			wanted := first.Wanted()
			_, err = NewSemaphore(open(15*time.Second), "a", 3).Acquire(t.Context())
			require.NoError(t, err)
			require.False(t, isWanted(wanted), "there was room for it")
			behindIt(t, func(ctx context.Context) error {
				_, err := NewSemaphore(open(15*time.Second), "a", 3).AcquireN(ctx, 2)
				return err
			})
			require.True(t, isWanted(wanted))
		})
	})
	t.Run("any name of a set", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			h, err := LockAll(t.Context(), open(15*time.Second), "a", "b", "c")
			require.NoError(t, err)
			require.False(t, isWanted(h.Wanted()))
			behindIt(t, NewMutex(open(15*time.Second), "c").Lock)
			require.True(t, isWanted(h.Wanted()))
			require.Nil(t, (*Hold)(nil).Wanted())
		})
	})
}

func TestTimeWhoAsksWhetherItIsWantedCostsOneWatchAndNothingAfterTheHold(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		m := NewRWMutex(open(time.Hour), "a")
		watches, lists := 0, 0
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if len(q.Keys) > 0 && strings.HasPrefix(q.Keys[0], "a/") {
				switch q.Kind {
				case memetcd.Watch:
					watches++
				case memetcd.Range: // and not of a single key, as renewals do
					if len(q.Body.(*pb.RangeRequest).RangeEnd) > 0 {
						lists++
					}
				}
			}
			return memetcd.Verdict{}
		})
		var holds []*Hold
		for range 3 {
			h, err := m.RLock(t.Context())
			require.NoError(t, err)
			require.False(t, isWanted(h.Wanted()))
			holds = append(holds, h)
		}
		require.Equal(t, 1, lists)
		require.LessOrEqual(t, watches, 2, "and one that keeps the stream open")
		for _, h := range holds {
			require.NoError(t, h.Release(t.Context()))
			require.False(t, isWanted(h.Wanted()))
		}
		lists = 0
		time.Sleep(2 * time.Hour)
		require.Zero(t, lists)
	})
}

// The ticket from which a hold came in memory is ahead of it until its deletion is confirmed. So it is the hold itself that
// seems to wait. Nor does a list tell otherwise that is as of before that deletion, and is taken in after it.
func TestTimeAHoldThatCameInMemoryIsNotWantedByItself(t *testing.T) {
	for what, slow := range map[string]map[string]fault{
		"the deletion is slow":       {"write": {late: time.Second}},
		"a list is slower than that": {"write": {late: 20 * time.Millisecond}, "read": {after: 50 * time.Millisecond}},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				first, second := NewMutex(s, "a"), NewMutex(s, "a")
				require.NoError(t, first.Lock(t.Context()))
				got, released := make(chan error, 1), make(chan error, 1)
				go func() { got <- second.Lock(t.Context()) }()
				synctest.Wait()
				e.bends(func(call string) fault { return slow[call] })
				go func() { released <- first.Unlock(t.Context()) }()
				require.NoError(t, <-got)
				wanted := second.Wanted()
				require.NoError(t, <-released)
				require.False(t, isWanted(wanted))
				e.bends(nil)
				behindIt(t, NewMutex(e.session(t), "a").Lock)
				require.True(t, isWanted(wanted))
			})
		})
	}
}

func TestTimeAHoldThatHasEndedIsWantedByNobody(t *testing.T) {
	for what, hold := range map[string]func(t *testing.T, e *etcd, s *Session) (wanted <-chan struct{}, hold context.Context){
		"of which one name was lost": func(t *testing.T, e *etcd, s *Session) (<-chan struct{}, context.Context) {
			t.Helper()
			h, err := LockAll(t.Context(), s, "a", "b")
			require.NoError(t, err)
			wanted := h.Wanted()
			synctest.Wait()
			e.remove(h.Keys()[1])
			return wanted, h.Context()
		},
		"of a Session that waits for a function": func(t *testing.T, _ *etcd, s *Session) (<-chan struct{}, context.Context) {
			t.Helper()
			m := lockedAs(t, s, "a")
			wanted := m.Wanted()
			behindIt(t, func(ctx context.Context) error {
				return NewMutex(s, "b").Do(ctx, func(ctx context.Context) error { <-ctx.Done(); time.Sleep(3 * time.Second); return nil })
			})
			ended := make(chan struct{})
			go func() { defer close(ended); _ = s.Close() }()
			t.Cleanup(func() { <-ended })
			return wanted, m.Context()
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				other := e.session(t)
				wanted, held := hold(t, e, e.session(t))
				<-held.Done()
				time.Sleep(time.Second)
				behindIt(t, NewMutex(other, "a").Lock)
				require.False(t, isWanted(wanted))
			})
		})
	}
}

func TestTimeWhoAsksAfterARefusalIsToldAllTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := NewRWMutex(e.session(t), "a")
		first, err := m.RLock(t.Context())
		require.NoError(t, err)
		second, err := m.RLock(t.Context())
		require.NoError(t, err)
		e.only("read", fault{err: errDenied})
		require.False(t, isWanted(first.Wanted()))
		e.bends(nil)
		wanted := second.Wanted()
		require.False(t, isWanted(wanted))
		behindIt(t, NewRWMutex(e.session(t), "a").Lock)
		require.True(t, isWanted(wanted))
	})
}
