package etcdlock

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// A lock that stays taken after its hold has ended, in fake time on the etcd in memory.

// free waits until a try succeeds, gives the lock back, and returns how long it took.
func free(t *testing.T, m *Mutex) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := m.TryLock(t.Context())
		if err == nil {
			require.NoError(t, m.Unlock(t.Context()))
			return time.Since(begin)
		}
		require.ErrorIs(t, err, ErrLocked)
		time.Sleep(10 * time.Millisecond)
	}
}

// soonest is what comes within a minute.
func soonest(got <-chan error) error {
	select {
	case err := <-got:
		return err
	case <-time.After(time.Minute):
		return context.DeadlineExceeded
	}
}

func TestTimeALockStaysTakenWhenItsProcessHasEnded(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s, other := open(3*time.Second), NewMutex(open(3*time.Second), "a")
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		token := m.Token()
		ctx := m.Context()
		require.NoError(t, m.UnlockAfter(t.Context(), 9500*time.Millisecond))
		require.ErrorIs(t, context.Cause(ctx), ErrNotHeld, "the hold is over at once")
		require.ErrorIs(t, m.Unlock(t.Context()), ErrNotHeld)
		require.NoError(t, s.Close())
		by, err := other.Holder(t.Context())
		require.NoError(t, err)
		require.Equal(t, token, by.Token)
		require.Equal(t, s.Identity(), by.Identity)
		require.InDelta(t, 10*time.Second, free(t, other), float64(20*time.Millisecond))
		require.Empty(t, etcd.Keys(""))
	})
	t.Run("and its own Session's renewals do not prolong it", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m := NewMutex(open(3*time.Second), "a")
			require.NoError(t, m.Lock(t.Context()))
			require.NoError(t, m.UnlockAfter(t.Context(), 10*time.Second))
			require.InDelta(t, 10*time.Second, free(t, m), float64(20*time.Millisecond))
		})
	})
	t.Run("unless for no time", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m := NewMutex(open(3*time.Second), "a")
			require.NoError(t, m.Lock(t.Context()))
			require.NoError(t, m.UnlockAfter(t.Context(), 0))
			require.Empty(t, etcd.Keys(""))
			require.ErrorIs(t, m.UnlockAfter(t.Context(), time.Hour), ErrNotHeld)
		})
	})
}

func TestTimeNobodyTakesAStayingTicketForItsOwn(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		m, behind := NewMutex(s, "a"), NewMutex(s, "a")
		names := map[string]bool{}
		for range 4 {
			require.NoError(t, m.Lock(t.Context()))
			token := m.Token()
			names[m.Key()] = true
			queued := make(chan error, 1)
			go func() { queued <- behind.Lock(t.Context()) }() // would have it in memory
			time.Sleep(100 * time.Millisecond)
			begin := time.Now()
			require.NoError(t, m.UnlockAfter(t.Context(), 5*time.Second))
			next := make(chan error, 1)
			go func() { next <- m.Lock(t.Context()) }() // queues when it stays already
			time.Sleep(4500 * time.Millisecond)
			busy(t, queued, "it stays")
			busy(t, next, "it stays")
			require.NoError(t, soonest(queued))
			require.InDelta(t, 5*time.Second, time.Since(begin), float64(10*time.Millisecond), "a watch tells")
			require.Greater(t, behind.Token(), token)
			require.NoError(t, behind.Unlock(t.Context()))
			require.NoError(t, soonest(next))
			require.NoError(t, m.Unlock(t.Context()))
			time.Sleep(2 * time.Second) // a renewal finds that its time is over
		}
		require.LessOrEqual(t, len(names), 3, "names are used again")
		require.Empty(t, etcd.Keys(""))
	})
}

// The move to a lease of its own is a write: neither the checks nor a look that they have asked for may take it for that of somebody who
// has taken the ticket up.
func TestTimeAStayingTicketIsNotTakenForAnothers(t *testing.T) {
	stays := func(t *testing.T, s *Session, begin time.Time) {
		t.Helper()
		require.NoError(t, NewMutex(s, "a").Lock(t.Context()))
		require.InDelta(t, 10*time.Second, time.Since(begin), float64(20*time.Millisecond))
	}
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		begin := time.Now()
		require.NoError(t, m.UnlockAfter(t.Context(), 10*time.Second))
		asked := 0
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Kind == memetcd.Range {
				asked++
			}
			return v
		})
		time.Sleep(5 * time.Second) // renewals, with their checks
		etcd.Judge(nil)
		require.Zero(t, asked, "nobody asks whose it is")
		stays(t, s, begin)
	})
	t.Run("by a look that was on its way", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			s := open(3 * time.Second)
			m := NewMutex(s, "a")
			require.NoError(t, m.Lock(t.Context()))
			key, asked := m.Key(), make(chan struct{}, 1)
			etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
				if q.Kind == memetcd.Range && q.Keys[0] == key {
					v.Delay = 100 * time.Millisecond
					asked <- struct{}{}
				}
				return v
			})
			etcd.Put(key, "by hand", int64(s.Lease()))
			<-asked // whose it is
			first := true
			etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
				v.AnswerLost = puts(q) && first // so that nobody knows yet that it was our own hand
				first = first && !puts(q)
				return v
			})
			begin := time.Now()
			require.NoError(t, m.UnlockAfter(t.Context(), 10*time.Second))
			time.Sleep(5 * time.Second)
			stays(t, s, begin)
		})
	})
}

func TestTimeTheGuardOfAHoldThatStaysIsFalse(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		guard := m.IsOwner()
		guarded := func() bool {
			resp, err := s.client.Txn(t.Context()).If(guard).Then(clientv3.OpPut("done", "")).Commit()
			require.NoError(t, err)
			return resp.Succeeded
		}
		require.True(t, guarded())
		require.NoError(t, m.UnlockAfter(t.Context(), 5*time.Second))
		require.Len(t, etcd.Keys("a/"), 1)
		require.False(t, guarded())
	})
}

func TestTimeAStayWhoseAnswersAreLostIsMadeOnce(t *testing.T) {
	for _, lost := range []memetcd.Kind{memetcd.Grant, memetcd.Txn} {
		t.Run(string(lost), func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				m := NewMutex(open(3*time.Second), "a")
				require.NoError(t, m.Lock(t.Context()))
				token, first := m.Token(), true
				etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if q.Kind == lost && q.Write && first {
						first = false
						v.AnswerLost = true
						v.Again = []time.Duration{6 * time.Second}
					}
					return v
				})
				key := m.Key()
				require.NoError(t, m.UnlockAfter(t.Context(), 10*time.Second))
				require.Equal(t, token, etcd.Keys("a/")[0].CreateRevision)
				etcd.Delete(key)
				time.Sleep(2 * time.Second) // a renewal finds it out
				require.NoError(t, m.Lock(t.Context()))
				require.Equal(t, key, m.Key(), "the name is used again")
				before := etcd.Key(key)
				time.Sleep(6 * time.Second)
				require.Equal(t, before, etcd.Key(key), "what arrives late changes nothing")
				require.NoError(t, m.Verify(t.Context()))
				require.NoError(t, m.Unlock(t.Context()))
				require.Empty(t, etcd.Keys(""))
			})
		})
	}
}

func TestTimeCloseWaitsForALockThatIsToStay(t *testing.T) {
	for what, run := range map[string]func(t *testing.T, s *Session, unlock func()){
		"Close": func(t *testing.T, s *Session, unlock func()) {
			unlock()
			require.NoError(t, s.Close())
		},
		"Shutdown": func(t *testing.T, s *Session, unlock func()) {
			ended := make(chan error, 1)
			go func() { ended <- s.Shutdown(context.WithoutCancel(t.Context())) }()
			time.Sleep(time.Second)
			unlock() // what Shutdown waits for
			require.NoError(t, <-ended)
		},
	} {
		t.Run(what, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				s, other := open(15*time.Second), NewMutex(open(3*time.Second), "a")
				m := NewMutex(s, "a")
				require.NoError(t, m.Lock(t.Context()))
				etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if puts(q) {
						v.Delay = 200 * time.Millisecond
					}
					return v
				})
				got := make(chan error, 1)
				run(t, s, func() {
					go func() { got <- m.UnlockAfter(t.Context(), 10*time.Second) }()
					time.Sleep(100 * time.Millisecond)
				})
				require.NoError(t, <-got)
				require.InDelta(t, 10*time.Second, free(t, other), float64(time.Second))
			})
		})
	}
}

func TestTimeAStayThatCannotBeIsTold(t *testing.T) {
	t.Run("the ticket was removed", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m := NewMutex(open(time.Hour), "a")
			require.NoError(t, m.Lock(t.Context()))
			etcd.Delete(m.Key())
			require.ErrorIs(t, m.UnlockAfter(t.Context(), 5*time.Second), ErrLost)
			require.Empty(t, etcd.Keys(""))
			require.Zero(t, free(t, m))
		})
	})
	t.Run("the hold was lost", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			s := open(3 * time.Second)
			m := NewMutex(s, "a")
			require.NoError(t, m.Lock(t.Context()))
			etcd.Revoke(int64(s.Lease()))
			<-m.Context().Done()
			require.ErrorIs(t, m.UnlockAfter(t.Context(), 5*time.Second), ErrLost)
			require.Empty(t, etcd.Keys(""))
		})
	})
	for _, kind := range []memetcd.Kind{memetcd.Grant, memetcd.Txn} {
		t.Run("etcd refuses the "+string(kind), func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				m := NewMutex(open(3*time.Second), "a")
				require.NoError(t, m.Lock(t.Context()))
				etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if kind == memetcd.Grant && q.Kind == kind || kind == memetcd.Txn && puts(q) {
						v.Refuse = errDenied
					}
					return v
				})
				require.ErrorIs(t, m.UnlockAfter(t.Context(), 5*time.Second), errDenied)
				time.Sleep(time.Millisecond)
				require.Empty(t, etcd.Keys(""))
			})
		})
	}
	t.Run("etcd is away for a while", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m, other := NewMutex(open(15*time.Second), "a"), NewMutex(open(3*time.Second), "a")
			require.NoError(t, m.Lock(t.Context()))
			etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Client == 1} })
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, m.UnlockAfter(ctx, 20*time.Second), ErrUnconfirmed)
			time.Sleep(5 * time.Second)
			etcd.Judge(nil)
			require.NoError(t, m.Unlock(t.Context()), "asked again, it tells how that went")
			require.InDelta(t, 14*time.Second, free(t, other), float64(2*time.Second))
		})
	})
	t.Run("etcd is away until the time is over", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m := NewMutex(open(15*time.Second), "a")
			require.NoError(t, m.Lock(t.Context()))
			etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Kind == memetcd.Grant} })
			require.NoError(t, m.UnlockAfter(t.Context(), 5*time.Second))
			require.Empty(t, etcd.Keys(""))
		})
	})
}

func TestTimeAFunctionUnderDoMayLeaveTheLockTaken(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		m, other := NewMutex(open(time.Minute), "a"), NewMutex(open(time.Minute), "a")
		for name, do := range map[string]func(context.Context, func(context.Context) error) error{"Do": m.Do, "TryDo": m.TryDo} {
			require.NoError(t, do(t.Context(), func(ctx context.Context) error { return m.UnlockAfter(context.WithoutCancel(ctx), time.Hour) }), name)
			require.ErrorIs(t, other.TryLock(t.Context()), ErrLocked, name)
			time.Sleep(time.Hour + time.Minute)
			require.ErrorIs(t, do(t.Context(), func(ctx context.Context) error { return m.Unlock(context.WithoutCancel(ctx)) }), ErrNotHeld, "else it is told: "+name)
			require.ErrorIs(t, do(t.Context(), func(ctx context.Context) error {
				etcd.Delete(m.Key())
				require.ErrorIs(t, m.Verify(ctx), ErrLost)
				return m.UnlockAfter(context.WithoutCancel(ctx), time.Hour)
			}), ErrLost, name)
		}
	})
}

// Of a given lease that is lost, the tickets are deleted one by one. What stays is on another lease by then.
func TestTimeALockThatStaysOutlivesALostGivenLease(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		shared := open(6 * time.Second).Lease() // which its maker goes on to renew
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx), WithLease(shared))
		require.NoError(t, err)
		m, held := NewMutex(s, "a"), NewMutex(s, "b")
		require.NoError(t, held.Lock(t.Context()))
		require.NoError(t, m.Lock(t.Context()))
		require.NoError(t, m.UnlockAfter(t.Context(), time.Minute))
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Client == 2} })
		<-held.Context().Done()
		etcd.Judge(nil)
		time.Sleep(30 * time.Second)
		require.Empty(t, etcd.Keys("b/"), "its ticket has been deleted")
		require.Len(t, etcd.Keys("a/"), 1)
	})
}

// UnlockAfter, of a job that ends at the last moment, while the Session shuts down.
func TestTimeAStayThatBeginsDuringShutdownIsWaitedFor(t *testing.T) {
	for what, end := range map[string]func(ctx context.Context, s *Session){
		"and Close follows":                func(_ context.Context, s *Session) { _ = s.Close() },
		"and the context of Shutdown ends": func(context.Context, *Session) {},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				m := lockedAs(t, s, "x")
				e.bends(func(call string) fault {
					if call == "write" || call == "grant" {
						return fault{after: 300 * time.Millisecond}
					}
					return fault{}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				shut, stays := make(chan error, 1), make(chan error, 1)
				go func() { shut <- s.Shutdown(ctx) }()
				time.Sleep(50 * time.Millisecond)
				go func() { stays <- m.UnlockAfter(context.Background(), time.Minute) }()
				time.Sleep(50 * time.Millisecond)
				end(ctx, s)
				require.Error(t, <-shut)
				require.NoError(t, <-stays)
				require.NoError(t, s.Close())
				time.Sleep(10 * time.Second)
				require.Len(t, e.Keys("x/"), 1)
			})
		})
	}
}

func TestTimeUnlockAfterKeepsNothingThatUnlockHasGivenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := lockedAs(t, e.session(t), "x")
		e.only("write", fault{late: 2 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Unlock(ctx), ErrUnconfirmed)
		require.ErrorIs(t, m.UnlockAfter(t.Context(), time.Hour), ErrNotHeld)
		require.NoError(t, m.Unlock(t.Context()), "that is what the question is about")
	})
}

func TestTimeALockStaysAsLongAsEtcdCanCount(t *testing.T) {
	for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - time.Hour} { // the first is too long to be added to anything
		inBubble(t, func(t *testing.T, e *etcd) {
			m := lockedAs(t, e.session(t), "x")
			require.NoError(t, m.UnlockAfter(t.Context(), d))
			time.Sleep(24 * time.Hour)
			require.Len(t, e.Keys("x/"), 1)
		})
	}
}
