package etcdlock

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// The queue in fake time: how soon who waits, or holds, learns what; and what a crowd asks.

// queued returns the key of the session's only ticket that waits for name.
func queued(t *testing.T, s *Session, name string) (key string) {
	t.Helper()
	synctest.Wait()
	waiting, err := NewMutex(s, name).Waiters(t.Context())
	require.NoError(t, err)
	waiting = slices.DeleteFunc(waiting, func(c Contender) bool { return c.Lease != s.Lease() })
	require.Len(t, waiting, 1)
	return waiting[0].Key
}

func TestTimeAPhantomByHandoffInMemoryEndsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Hour)) // no renewal looks meanwhile
		first, second, foreign := NewMutex(s, "phantom"), NewMutex(s, "phantom"), NewMutex(e.session(t), "phantom")
		require.NoError(t, first.Lock(t.Context()))
		got, next := make(chan error, 1), make(chan error, 1)
		go func() { got <- second.Lock(t.Context()) }()
		key := queued(t, s, "phantom")
		go func() { next <- foreign.Lock(t.Context()) }()
		queued(t, foreign.s, "phantom")
		e.remove(key)
		e.only("write", fault{after: time.Millisecond}) // so that the handoff does not wait for the deletion
		require.NoError(t, first.Unlock(t.Context()))
		require.NoError(t, <-got)
		held := second.Context()
		require.NoError(t, <-next, "nobody is ahead in etcd")
		time.Sleep(queue.CheckAfter)
		synctest.Wait()
		require.ErrorIs(t, context.Cause(held), ErrLost)
		require.NoError(t, foreign.Context().Err())
		require.ErrorIs(t, second.Unlock(t.Context()), ErrLost)
	})
}

func TestTimeAShortHoldIsNotChecked(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Hour))
		done := make(chan error, 10)
		for range cap(done) {
			go func() {
				m := NewMutex(s, "short")
				err := m.Lock(t.Context())
				time.Sleep(queue.CheckAfter - 1)
				if err == nil {
					err = m.Unlock(t.Context())
				}
				done <- err
			}()
		}
		for range cap(done) {
			require.NoError(t, <-done)
		}
		require.Zero(t, e.count("read"), "a hold that is over before its check is due costs no read")
	})
}

// crowd has n goroutines of s wait for name until ctx ends, and returns their errors.
func crowd(ctx context.Context, s *Session, name string, n int) <-chan error {
	errs := make(chan error, n)
	for range n {
		go func() { errs <- NewMutex(s, name).Lock(ctx) }()
	}
	synctest.Wait()
	return errs
}

func TestTimeACrowdAsksWhoHoldsOnceOrNotAtAll(t *testing.T) {
	for name, own := range map[string]bool{"behind one of its own": true, "behind another": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(time.Hour), WithIdentity("own"))
				holder := NewMutex(s, "crowd")
				if !own {
					holder = NewMutex(e.session(t, WithTTL(time.Hour), WithIdentity("foreign")), "crowd")
				}
				require.NoError(t, holder.Lock(t.Context()))
				ctx, cancel := context.WithCancel(t.Context())
				errs := crowd(ctx, s, "crowd", 100)
				reads := e.count("read")
				time.Sleep(time.Minute)
				synctest.Wait()
				if own {
					require.Equal(t, reads, e.count("read"))
				} else {
					require.Equal(t, reads+1, e.count("read"))
				}
				cancel()
				for range cap(errs) {
					err := <-errs
					require.ErrorIs(t, err, context.Canceled)
					var by *LockedError
					require.ErrorAs(t, err, &by)
					require.Equal(t, LockedError{Name: "crowd", Holder: holder.s.Identity(), Token: holder.Token(), Key: holder.Key()}, *by)
				}
			})
		})
	}
}

func TestTimeWaitersWithOthersBetweenThemAskOnceToo(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, other := e.session(t, WithTTL(time.Hour)), e.session(t, WithTTL(time.Hour), WithIdentity("foreign"))
		holder := NewMutex(other, "between")
		require.NoError(t, holder.Lock(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		var errs []<-chan error
		for range 10 {
			errs = append(errs, crowd(ctx, s, "between", 1), crowd(ctx, other, "between", 1))
		}
		reads := e.count("read")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, reads+1, e.count("read"))
		cancel()
		for _, err := range errs {
			var by *LockedError
			require.ErrorAs(t, <-err, &by)
			require.Equal(t, holder.Key(), by.Key)
		}
	})
}

func TestTimeAHandoffDoesNotWaitForTheAnswerWhoHolds(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m, holder := NewMutex(e.session(t), "asked"), NewMutex(e.session(t), "asked")
		require.NoError(t, holder.Lock(t.Context()))
		got := make(chan error, 1)
		go func() { got <- m.Lock(t.Context()) }()
		queued(t, m.s, "asked")
		e.only("read", fault{lost: true})
		reads := e.count("read")
		time.Sleep(100 * time.Millisecond)
		require.Greater(t, e.count("read"), reads, "it has asked")
		require.NoError(t, holder.Unlock(t.Context()))
		released := time.Now()
		require.NoError(t, <-got)
		require.Zero(t, time.Since(released))
	})
}

func TestTimeAFreshStreamWakesOnlyThoseWhoWatch(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, holder := e.session(t, WithTTL(time.Hour)), NewMutex(e.session(t), "stream")
		require.NoError(t, holder.Lock(t.Context()))
		errs := crowd(t.Context(), s, "stream", 100)
		time.Sleep(time.Second)
		reads, watches := e.count("read"), e.count("watch")
		e.bends(func(call string) fault { return fault{lost: call == "watch" && e.calls[call] == watches+1} })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			for _, err := range NewElection(s, "observed").Observe(ctx) {
				if err != nil {
					return
				}
			}
		}()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Greater(t, e.count("watch"), watches+1, "Observe has tried again")
		require.LessOrEqual(t, e.count("watch"), watches+3+2, "three tries of Observe; the first's, and the one that keeps the stream open")
		require.LessOrEqual(t, e.count("read"), reads+1+1, "the list of Observe; what happened before the new watch of the first")
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, <-errs)
	})
}

func TestTimeAWaiterThatIsToldOfItsOwnRemovalDoesNotAsk(t *testing.T) {
	for name, own := range map[string]bool{"behind one of its own": true, "behind another": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(time.Hour))
				holder := NewMutex(s, "removed")
				if !own {
					holder = NewMutex(e.session(t, WithTTL(time.Hour)), "removed")
				}
				require.NoError(t, holder.Lock(t.Context()))
				ctx, cancel := context.WithCancel(t.Context())
				errs := crowd(ctx, s, "removed", 1)
				key := queued(t, s, "removed")
				time.Sleep(time.Second)
				e.remove(key)
				reads, writes := e.count("read"), e.count("write")
				s.leases.CheckNow()
				synctest.Wait()
				require.Equal(t, reads+2, e.count("read"), "the renewal's, and the check that it calls for")
				time.Sleep(10 * time.Millisecond) // it pauses before it queues again
				synctest.Wait()
				require.Equal(t, writes+1, e.count("write"))
				cancel()
				require.ErrorIs(t, <-errs, context.Canceled)
			})
		})
	}
}

// A deletion that hangs is somebody else's trouble, unless the hold can go on in memory.
func TestTimeAReleaseThatMustGoThroughEtcdDoesNotWaitForAnothersDeletion(t *testing.T) {
	for name, c := range map[string]struct {
		guard bool
		kind  *kind
	}{
		"an Election": {false, electionKind}, "a guard was given out": {true, mutexKind},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				take := func(ctx context.Context) (*queue.Ticket, error) {
					ticket, _, _, err := s.tickets.Acquire(ctx, c.kind.ticket, "stuck", []string{"stuck"}, "")
					return ticket, err
				}
				first, err := take(t.Context())
				require.NoError(t, err)
				if c.guard {
					first.Guard()
				}
				next := make(chan error, 1)
				go func() { _, err := take(t.Context()); next <- err }()
				queued(t, s, "stuck")
				ctx, cancel := context.WithCancel(t.Context())
				last := make(chan error, 1)
				go func() { _, err := take(ctx); last <- err }()
				synctest.Wait()
				e.only("write", fault{lost: true})
				cancel() // this one's deletion hangs
				require.ErrorIs(t, <-last, context.Canceled)
				synctest.Wait()
				e.bends(nil)
				released := time.Now()
				require.NoError(t, first.Release(t.Context(), false))
				require.NoError(t, <-next)
				require.Zero(t, time.Since(released))
			})
		})
	}
}

func TestTimeTryLockDoesNotWaitForADeletionThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m, released := locked(t, s), make(chan error, 1)
		e.only("write", fault{lost: true})
		go func() { released <- m.Unlock(t.Context()) }()
		synctest.Wait()
		e.bends(nil)
		begin := time.Now()
		require.NoError(t, NewMutex(s, m.Name()).TryLock(t.Context()))
		require.Zero(t, time.Since(begin))
		require.NoError(t, <-released)
	})
}

// Keys of names below come and go faster than TryLock can look at all keys under its own.
func TestTimeTryLockEndsUnderTrafficOnNamesBelow(t *testing.T) {
	for name, busy := range map[string]bool{"free": false, "taken while it looks": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				m := NewMutex(e.session(t), "n")
				traffic, stop := context.WithCancel(t.Context())
				defer stop()
				go func() {
					for i := 0; ; i++ {
						key := fmt.Sprintf("n/b/%d", i)
						e.Put(key, "", 0)
						if !rpc.Sleep(traffic, 3*time.Millisecond) {
							return
						}
						e.remove(key)
					}
				}()
				synctest.Wait()
				e.bends(func(string) fault { // with e.mu; the fourth write is that of the ticket that queues to see
					if busy && e.calls["write"] == 4 && e.Key("n/foreign") == nil {
						e.Put("n/foreign", "other", 0)
					}
					return fault{after: 40 * time.Millisecond}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				calls := e.count("")
				err := m.TryLock(ctx)
				require.LessOrEqual(t, e.count("")-calls, 8)
				if !busy {
					require.NoError(t, err)
					require.NoError(t, m.Verify(t.Context()))
					return
				}
				var by *LockedError
				require.ErrorAs(t, err, &by)
				require.Equal(t, "other", by.Holder)
				require.Equal(t, "n/foreign", by.Key)
				time.Sleep(100 * time.Millisecond)
				kvs, _, err := m.list(t.Context())
				require.NoError(t, err)
				require.Len(t, kvs, 1, "no ticket is left behind")
			})
		})
	}
}

// A list may know of a contender whose event is still on its way.
func TestTimeAMirrorMovesItsWatchOnlyIfThatStaysSilent(t *testing.T) {
	for name, silent := range map[string]bool{"the event comes a little later": false, "it never comes": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(6*time.Second), WithLinger(time.Hour))
				m := NewMutex(s, "mirror")
				for range 2 {
					require.NoError(t, m.Lock(t.Context()))
					time.Sleep(time.Millisecond) // for the mirror
					require.NoError(t, m.Unlock(t.Context()))
				}
				require.Len(t, e.Keys("mirror/"), 1, "it lingers")
				if silent {
					e.MuteStreams(0) // their member is frozen
				} else {
					e.DelayStreams(0, s.TTL()/3+time.Millisecond)
				}
				e.Put("mirror/foreign", "", 0)
				e.DelayStreams(0, 0)
				watches := e.count("watch")
				time.Sleep(s.TTL() / 3)
				synctest.Wait()
				require.Len(t, e.Keys("mirror/"), 1, "the lock gives way at once")
				time.Sleep(time.Second)
				synctest.Wait()
				require.Equal(t, silent, e.count("watch") > watches)
			})
		})
	}
}

// To tell who is the first of a long queue etcd reads all of it.
func TestTimeWhoIsFarBackAsksWhoHoldsOnlyBeforeItGivesUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour), WithIdentity("holder")), "back")
		require.NoError(t, holder.Lock(t.Context()))
		const n = 50
		errs := make(chan error, n)
		for range n {
			m := NewMutex(e.session(t, WithTTL(time.Hour)), "back")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			go func() { errs <- m.Lock(ctx) }()
			synctest.Wait()
		}
		reads := e.count("read")
		time.Sleep(9 * time.Second)
		synctest.Wait()
		require.Equal(t, reads+1, e.count("read"), "the one that is next asks for one key")
		for range n {
			var by *LockedError
			require.ErrorAs(t, <-errs, &by)
			require.Equal(t, LockedError{Name: "back", Holder: "holder", Token: holder.Token(), Key: holder.Key()}, *by)
		}
	})
}

// A goroutine that waits for an hour has asked once who holds. Others that give up an hour later tell nothing of that.
func TestTimeNobodyIsToldOfAHolderOfLongAgo(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, first, second := e.session(t), e.session(t, WithIdentity("first")), e.session(t, WithIdentity("second"))
		early, late := lockedAs(t, first, "x"), NewMutex(second, "x")
		behindIt(t, func(ctx context.Context) error { return late.Lock(t.Context()) })
		behindIt(t, NewMutex(second, "x").Lock)
		behindIt(t, NewMutex(s, "x").Lock)
		time.Sleep(10 * time.Second)
		require.NoError(t, early.Unlock(t.Context()))
		time.Sleep(time.Hour)
		for patience, want := range map[time.Duration]string{10 * time.Millisecond: "", 10 * time.Second: "second"} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			var by *LockedError
			require.ErrorAs(t, NewMutex(s, "x").Lock(ctx), &by)
			cancel()
			require.Equal(t, want, by.Holder, patience)
			time.Sleep(time.Hour)
		}
	})
}
