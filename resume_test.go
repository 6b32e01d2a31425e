package etcdlock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// What an earlier Session left is taken up, in fake time.

// leftBehind is a lead by a Session that was orphaned, and a candidate of another Session that waits for it.
func leftBehind(t *testing.T, e *etcd, ttl time.Duration) (key string, token int64, waits *Election, won chan error) {
	t.Helper()
	s, err := NewSession(t.Context(), e.client(t), WithTTL(ttl))
	require.NoError(t, err)
	led := NewElection(s, "led")
	require.NoError(t, led.Campaign(t.Context(), "one"))
	key, token = led.Key(), led.Token()
	waits, won = NewElection(e.session(t, WithTTL(10*time.Second)), "led"), make(chan error, 1)
	go func() { won <- waits.Campaign(context.Background(), "next") }()
	synctest.Wait()
	require.NoError(t, s.Orphan())
	return key, token, waits, won
}

func TestTimeWhatWasLeftIsTakenUpOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		key, token, _, won := leftBehind(t, e, 10*time.Second)
		s := e.session(t, WithTTL(10*time.Second))
		led := NewElection(s, "led")
		require.NoError(t, led.Resume(t.Context(), key, token))
		require.Equal(t, token, led.Token())
		require.Equal(t, key, led.Key())
		require.ErrorIs(t, led.Resume(t.Context(), key, token), ErrCampaigning)
		require.ErrorIs(t, NewElection(s, "led").Resume(t.Context(), key, token), ErrTaken, "by this Session itself")
		require.ErrorIs(t, NewElection(e.session(t), "led").Resume(t.Context(), key, token), ErrTaken)
		time.Sleep(time.Minute) // the lease on which it was is long gone
		require.NoError(t, led.Verify(t.Context()))
		require.Empty(t, won)
		l, err := led.Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, Leader{Value: "one", Token: token, Key: key, Lease: s.Lease(), Modified: l.Modified, Version: 2}, l)
		require.NoError(t, led.Proclaim(t.Context(), "two"))
		require.NoError(t, led.Resign(t.Context()))
		require.NoError(t, <-won)
		require.ErrorIs(t, led.Resume(t.Context(), key, token), ErrTaken, "it is gone")
		require.ErrorContains(t, led.Resume(t.Context(), "elsewhere/1-1", token), "not the key of a ticket")
		require.ErrorContains(t, led.Resume(t.Context(), key, 0), "revision 0")
	})
}

// Two that know the same race; then one takes up what the other has: that one is told.
func TestTimeOfTwoThatTakeUpOneIsToldAndSoIsWhoHeldBefore(t *testing.T) {
	for name, shared := range map[string]bool{"on leases of their own": false, "on the lease where it was": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				maker := e.session(t, WithTTL(10*time.Second))
				m := NewMutex(maker, "m")
				require.NoError(t, m.Lock(t.Context()))
				key, token := m.Key(), m.Token()
				var opts []Option
				if shared {
					opts = []Option{WithLease(maker.Lease())}
					require.NoError(t, maker.Orphan())
				} else {
					opts = []Option{WithTTL(10 * time.Second)}
				}
				var takers [2]*Mutex
				errs := make(chan error, 2)
				for i := range takers {
					s, err := NewSession(t.Context(), e.client(t), opts...)
					require.NoError(t, err)
					defer func() { require.NoError(t, s.Orphan()) }()
					takers[i] = NewMutex(s, "m")
					go func() { errs <- takers[i].Resume(t.Context(), key, token) }()
				}
				one, two := <-errs, <-errs
				require.True(t, one == nil && errors.Is(two, ErrTaken) || two == nil && errors.Is(one, ErrTaken), "%v, %v", one, two)
				has, not := takers[0], takers[1]
				if has.Key() == "" {
					has, not = not, has
				}
				now, err := not.Holder(t.Context())
				require.NoError(t, err)
				require.Greater(t, now.Modified, now.Token)
				began := time.Now()
				require.NoError(t, not.Resume(t.Context(), now.Key, now.Modified))
				select {
				case <-has.Context().Done():
				case <-time.After(time.Minute):
				}
				require.LessOrEqual(t, time.Since(began), 10*time.Second/3)
				require.ErrorIs(t, has.Unlock(t.Context()), ErrLost)
				time.Sleep(20 * time.Second)
				require.NoError(t, not.Verify(t.Context()), "and deletes nothing")
				if !shared {
					require.ErrorIs(t, m.Unlock(t.Context()), ErrLost, "the first has noticed, too")
				}
			})
		})
	}
}

func TestTimeATicketThatWaitedIsTakenUpInItsPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		first := NewMutex(e.session(t), "m")
		require.NoError(t, first.Lock(t.Context()))
		left, err := NewSession(t.Context(), e.client(t), WithTTL(10*time.Second))
		require.NoError(t, err)
		go func() { _ = NewMutex(left, "m").Lock(context.Background()) }()
		synctest.Wait()
		last := NewMutex(e.session(t), "m")
		got := make(chan error, 1)
		go func() { got <- last.Lock(context.Background()) }()
		synctest.Wait()
		queued, err := first.Waiters(t.Context())
		require.NoError(t, err)
		m := NewMutex(e.session(t), "m")
		took := make(chan error, 1)
		go func() { took <- m.Resume(context.Background(), queued[0].Key, queued[0].Modified) }()
		synctest.Wait()
		require.Empty(t, took)
		require.NoError(t, first.Unlock(t.Context()))
		require.NoError(t, <-took)
		require.Equal(t, queued[0].Token, m.Token())
		require.Empty(t, got)
		require.NoError(t, m.Unlock(t.Context()))
		require.NoError(t, <-got)
		require.NoError(t, left.Close())
	})
}

// A claim that is not answered is given up, or comes late: nothing of it stays.
func TestTimeAClaimWithoutAnAnswerLeavesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		claims   []memetcd.Verdict
		patience time.Duration
		want     error
	}{
		"made, and not answered": {
			[]memetcd.Verdict{{AnswerLost: true}}, 200 * time.Millisecond, context.DeadlineExceeded,
		},
		"made when it was given up long ago": {
			[]memetcd.Verdict{{Delay: 8 * time.Second}}, 200 * time.Millisecond, context.DeadlineExceeded,
		},
		"made when it was refused long ago": {
			[]memetcd.Verdict{{Delay: 8 * time.Second}, {Refuse: errDenied}}, 7 * time.Second, errDenied,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				key, token, waits, won := leftBehind(t, e, 10*time.Minute)
				s := e.session(t, WithTTL(10*time.Second))
				var sent atomic.Int32
				e.Judge(func(r memetcd.Request) memetcd.Verdict {
					if r.Kind == memetcd.Txn && r.Write && r.Client == 3 {
						if n := int(sent.Add(1)); n <= len(tt.claims) {
							return tt.claims[n-1]
						}
					}
					return e.judge(r)
				})
				ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
				defer cancel()
				led, began := NewElection(s, "led"), time.Now()
				require.ErrorIs(t, led.Resume(ctx, key, token), tt.want)
				require.Empty(t, led.Key())
				if tt.claims[0].Delay > 0 {
					time.Sleep(time.Until(began.Add(7900 * time.Millisecond)))
					require.Empty(t, won, "on the lease where it was it stays what it was")
				}
				require.NoError(t, <-won)
				require.NoError(t, waits.Verify(t.Context()))
			})
		})
	}
}

// With more patience, the claim that was not answered is found to have been made.
func TestTimeAClaimIsKnownByItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		key, token, _, _ := leftBehind(t, e, 10*time.Minute)
		s := e.session(t, WithTTL(10*time.Second))
		var first atomic.Bool
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if r.Kind == memetcd.Txn && r.Write && r.Client == 3 && first.CompareAndSwap(false, true) {
				return memetcd.Verdict{AnswerLost: true}
			}
			return e.judge(r)
		})
		led := NewElection(s, "led")
		require.NoError(t, led.Resume(t.Context(), key, token))
		require.NoError(t, led.Verify(t.Context()))
		require.Equal(t, token, led.Token())
		require.NoError(t, led.Proclaim(t.Context(), "two"))
	})
}

// The etcd client sends a claim twice by itself, and the copy finds what the first has made.
func TestTimeAClaimThatTheClientRepeatsIsMade(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		key, token, _, _ := leftBehind(t, e, 10*time.Minute)
		led := NewElection(e.session(t, WithTTL(10*time.Second)), "led")
		var sent atomic.Bool
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if r.Kind == memetcd.Txn && r.Write && r.Client == 3 && sent.CompareAndSwap(false, true) {
				return memetcd.Verdict{Again: []time.Duration{10 * time.Millisecond}, AnswerAgain: true}
			}
			return e.judge(r)
		})
		require.NoError(t, led.Resume(t.Context(), key, token))
		require.NoError(t, led.Verify(t.Context()))
		require.NoError(t, led.Resign(t.Context()))
		require.True(t, sent.Load())
	})
}

// An earlier copy of the put of a ticket that another Session had taken up, and released, arrives.
func TestTimeWhatArrivesAfterATicketThatWasTakenUpIsSwept(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, other := e.session(t, WithTTL(10*time.Second)), e.session(t, WithTTL(10*time.Second))
		var first atomic.Bool
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if puts(r) && first.CompareAndSwap(false, true) {
				return memetcd.Verdict{Delay: 20 * time.Second}
			}
			return e.judge(r)
		})
		m, has := lockedAs(t, s, "m"), NewMutex(other, "m")
		require.NoError(t, has.Resume(t.Context(), m.Key(), m.Token()))
		<-m.Context().Done()
		require.NoError(t, has.Unlock(t.Context()))
		time.Sleep(30 * time.Second)
		require.Empty(t, e.Keys("m/"))
	})
}

// A ticket goes to another Session and comes back, by a claim that arrives when it was given up.
func TestTimeATicketThatComesBackIsSwept(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		old, err := NewSession(t.Context(), e.client(t), WithTTL(time.Hour))
		require.NoError(t, err)
		left := lockedAs(t, old, "m")
		key := left.Key()
		require.NoError(t, old.Orphan())
		s := e.session(t, WithTTL(10*time.Second))
		m := NewMutex(s, "m")
		require.NoError(t, m.Resume(t.Context(), key, e.Key(key).ModRevision))
		other, err := NewSession(t.Context(), e.client(t), WithTTL(time.Hour))
		require.NoError(t, err)
		require.NoError(t, NewMutex(other, "m").Resume(t.Context(), key, e.Key(key).ModRevision))
		<-m.Context().Done()
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		require.NoError(t, other.Orphan())
		e.only("write", fault{late: 3 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Resume(ctx, key, e.Key(key).ModRevision), context.DeadlineExceeded)
		e.bends(nil)
		time.Sleep(20 * time.Second)
		require.Empty(t, e.Keys("m/"))
	})
}

// Somebody who writes by hand on a Session's own lease, or takes the ticket off it, takes nothing up.
func TestTimeWhoWritesByHandEndsNoHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(10*time.Second))
		led := NewElection(s, "led")
		require.NoError(t, led.Campaign(t.Context(), "one"))
		for _, id := range []int64{int64(s.Lease()), 0} {
			e.Put(led.Key(), "by hand", id)
			time.Sleep(10 * time.Second)
			require.NoError(t, led.Verify(t.Context()))
		}
		require.NoError(t, led.Proclaim(t.Context(), "two"))
		require.NoError(t, led.Resign(t.Context()))
		require.Empty(t, e.Keys("led/"))
	})
}

// A Proclaim that finds the ticket taken up says so, and does not take it back.
func TestTimeAProclaimDoesNotTakeTheTicketBack(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(10*time.Minute)) // no renewal looks meanwhile
		led := NewElection(s, "led")
		require.NoError(t, led.Campaign(t.Context(), "one"))
		taker := NewElection(e.session(t), "led")
		require.NoError(t, taker.Resume(t.Context(), led.Key(), led.Token()))
		require.ErrorIs(t, led.Proclaim(t.Context(), "two"), ErrLost)
		require.ErrorIs(t, led.Proclaim(t.Context(), "two"), ErrLost)
		l, err := taker.Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, "one", l.Value)
		require.NoError(t, taker.Verify(t.Context()))
	})
}

// The key of a ticket that was taken up stays. Who held by it before, and knows that, does not take it for a new one of its own.
func TestTimeWhoLostATicketToAnotherSessionQueuesAnew(t *testing.T) {
	t.Run("that has a lease of its own", func(t *testing.T) { whoLostATicketQueuesAnew(t, false) })
	t.Run("on the same lease", func(t *testing.T) { whoLostATicketQueuesAnew(t, true) })
}

func whoLostATicketQueuesAnew(t *testing.T, oneLease bool) {
	t.Helper()
	inBubble(t, func(t *testing.T, e *etcd) {
		own := WithTTL(10 * time.Second)
		s := e.session(t, own)
		if oneLease {
			own = WithLease(s.Lease())
			s = e.session(t, own)
		}
		m, led := NewMutex(s, "m"), NewElection(s, "led")
		require.NoError(t, m.Lock(t.Context()))
		require.NoError(t, led.Campaign(t.Context(), "one"))
		taker := e.session(t, own)
		has, leads := NewMutex(taker, "m"), NewElection(taker, "led")
		require.NoError(t, has.Resume(t.Context(), m.Key(), m.Token()))
		require.NoError(t, leads.Resume(t.Context(), led.Key(), led.Token()))
		<-m.Context().Done()
		<-led.Context().Done()
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		// What clears up after a put that never arrived does not meet the key.
		e.only("write", fault{lost: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, m.Lock(ctx))
		e.bends(nil)
		time.Sleep(10 * time.Second)
		require.NoError(t, has.Verify(t.Context()))
		for name, call := range map[string]func(context.Context) error{
			"TryLock": m.TryLock, "Lock": m.Lock,
			"Campaign": func(ctx context.Context) error { return led.Campaign(ctx, "two") },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.Error(t, call(ctx), name)
			cancel()
		}
		time.Sleep(20 * time.Second)
		require.NoError(t, has.Verify(t.Context()))
		require.NoError(t, leads.Verify(t.Context()))
		require.NoError(t, has.Unlock(t.Context()))
		require.NoError(t, m.Lock(t.Context()))
	})
}

// A put whose answer was lost is sent again, and finds the ticket where another Session has taken it up meanwhile.
func TestTimeATicketThatWasTakenUpBeforeItsPutWasAnsweredIsNotOurs(t *testing.T) {
	for name, take := range map[string]func(s *Session) error{
		"Lock":    func(s *Session) error { return NewMutex(s, "m").Lock(context.Background()) },
		"LockAll": func(s *Session) error { _, err := LockAll(context.Background(), s, "m", "n"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s, taker := e.session(t, WithTTL(10*time.Second)), e.session(t, WithTTL(10*time.Second))
				first := true
				e.Judge(func(r memetcd.Request) memetcd.Verdict {
					lost := first && puts(r)
					first = first && !lost
					return memetcd.Verdict{AnswerLost: lost}
				})
				got := make(chan error, 1)
				go func() { got <- take(s) }()
				synctest.Wait()
				m := NewMutex(taker, "m")
				left, err := m.Holder(t.Context())
				require.NoError(t, err)
				require.NoError(t, m.Resume(t.Context(), left.Key, left.Modified))
				time.Sleep(20 * time.Second)
				require.Empty(t, got)
				require.NoError(t, m.Verify(t.Context()))
				require.NoError(t, m.Unlock(t.Context()))
				require.NoError(t, soon(t, got))
			})
		})
	}
}

func TestTimeTheGuardOfAHoldThatWasTakenUpIsTrue(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := NewMutex(e.session(t), "m")
		require.NoError(t, m.Lock(t.Context()))
		taker := e.session(t)
		has := NewMutex(taker, "m")
		require.NoError(t, has.Resume(t.Context(), m.Key(), m.Token()))
		holds := func(guard clientv3.Cmp) bool {
			resp, err := taker.client.Txn(t.Context()).If(guard).Commit()
			require.NoError(t, err)
			return resp.Succeeded
		}
		require.True(t, holds(has.IsOwner()))
		require.False(t, holds(m.IsOwner()), "its ticket was written since")
		guard := has.IsOwner()
		require.NoError(t, has.Unlock(t.Context()))
		require.False(t, holds(guard))
	})
}

func TestTimeAHoldOfSeveralNamesSeesThatOneWasTakenUp(t *testing.T) {
	found(t, func(t *testing.T, _ *memetcd.Server, open func(time.Duration) *Session) {
		h, err := LockAll(t.Context(), open(time.Minute), "a", "b")
		require.NoError(t, err)
		m := NewMutex(open(time.Minute), "b")
		require.NoError(t, m.Resume(t.Context(), h.Keys()[1], h.Token()))
		require.ErrorIs(t, h.Verify(t.Context()), ErrLost)
		require.ErrorIs(t, h.Release(t.Context()), ErrLost)
		require.NoError(t, m.Verify(t.Context()), "it is not deleted with the others")
	})
}

// What was sent to clean up after a claim that was not answered may arrive at any time. It must not meet a ticket that the
// same Session has taken up since.
func TestTimeAClaimThatWasGivenUpIsNotMadeAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		key, token, _, won := leftBehind(t, e, 10*time.Minute)
		s := e.session(t, WithTTL(30*time.Second))
		n := 0
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if r.Kind == memetcd.Txn && r.Write && r.Client == 3 {
				n++
				return memetcd.Verdict{Lost: n == 1, Delay: map[int]time.Duration{2: 5 * time.Second}[n]}
			}
			return memetcd.Verdict{}
		})
		led := NewElection(s, "led")
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, led.Resume(ctx, key, token), context.DeadlineExceeded)
		for range 4 { // also when the deletion was confirmed by its second request
			err := led.Resume(t.Context(), key, token)
			require.ErrorContains(t, err, "a Session with another lease can")
			require.NotErrorIs(t, err, ErrTaken, "it is there")
			time.Sleep(time.Second)
		}
		another := NewElection(e.session(t), "led")
		require.NoError(t, another.Resume(t.Context(), key, token))
		time.Sleep(10 * time.Second)
		require.NoError(t, another.Verify(t.Context()))
		require.Empty(t, won)
	})
}

// Nor what is sent after a put of this Session's own, which is deleted by its name.
func TestTimeAStrayOfItsOwnIsNotTakenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Minute))
		n := 0
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if !puts(r) {
				return memetcd.Verdict{}
			}
			n++
			return memetcd.Verdict{Delay: 3 * time.Second, Lost: n > 1}
		})
		m := NewMutex(s, "m")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, m.Lock(ctx))
		time.Sleep(4 * time.Second)
		e.Judge(nil)
		stray, err := m.Holder(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, m.Resume(t.Context(), stray.Key, stray.Modified), ErrTaken)
		require.NoError(t, m.Lock(t.Context()), "the sweep removes it")
	})
}

// A deletion of a ticket whose put was not answered names no revision. Under way when its Session ended, it does not meet the
// ticket on the lease of the Session that has taken it up since.
func TestTimeADeletionThatArrivesLateDoesNotMeetWhatWasTakenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		ctx, closes := context.WithCancel(t.Context())
		s, err := NewSession(t.Context(), e.Client(ctx), WithTTL(time.Minute))
		require.NoError(t, err)
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			switch {
			case r.Client != 1 || !r.Write:
				return memetcd.Verdict{}
			case puts(r):
				return memetcd.Verdict{AnswerLost: true}
			}
			return memetcd.Verdict{Delay: 5 * time.Second}
		})
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, NewMutex(s, "m").Lock(impatient))
		synctest.Wait() // its deletion is under way
		closes()
		require.ErrorIs(t, s.Close(), ErrClientClosed)
		m := NewMutex(e.session(t, WithTTL(time.Minute)), "m")
		stray, err := m.Holder(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.Resume(t.Context(), stray.Key, stray.Modified))
		time.Sleep(10 * time.Second)
		require.NoError(t, m.Verify(t.Context()))
		require.Len(t, e.Keys("m/"), 1)
	})
}

// A Proclaim that was not answered may have been made. That a ticket on a shared lease was taken up shows all the same.
func TestTimeATakeOverIsNoticedAfterAProclaimWithoutAnAnswer(t *testing.T) {
	for name, f := range map[string]fault{"never made": {lost: true}, "made": {after: time.Minute}} {
		for _, taken := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *etcd) {
					maker := e.session(t, WithTTL(10*time.Second))
					open := func() *Election {
						s, err := NewSession(t.Context(), e.client(t), WithLease(maker.Lease()))
						require.NoError(t, err)
						t.Cleanup(func() { require.NoError(t, s.Orphan()) })
						return NewElection(s, "led")
					}
					led := open()
					require.NoError(t, led.Campaign(t.Context(), "one"))
					e.only("write", f)
					for _, value := range []string{"two", "three"} {
						ctx, cancel := context.WithTimeout(t.Context(), time.Second)
						require.Error(t, led.Proclaim(ctx, value))
						cancel()
					}
					e.bends(nil)
					hold := led.Context()
					if taken {
						now, err := led.Leader(t.Context())
						require.NoError(t, err)
						other := open()
						require.NoError(t, other.Resume(t.Context(), now.Key, now.Modified))
						time.Sleep(4 * time.Second)
						require.ErrorIs(t, context.Cause(hold), ErrLost)
						require.ErrorIs(t, led.Proclaim(t.Context(), "four"), ErrLost)
						require.NoError(t, other.Verify(t.Context()))
						require.NoError(t, other.Proclaim(t.Context(), "four"))
						return
					}
					time.Sleep(20 * time.Second)
					require.NoError(t, hold.Err())
					require.NoError(t, led.Proclaim(t.Context(), "four"))
					require.NoError(t, led.Proclaim(t.Context(), "five"))
					time.Sleep(20 * time.Second)
					require.NoError(t, led.Verify(t.Context()))
				})
			})
		}
	}
}

// The lease that a Session has made is given to another, which takes up what the first one holds. It must not: whoever made the
// lease keeps it, and one of the two notices.
func TestTimeWhoMadeTheLeaseKeepsWhatItHoldsOnIt(t *testing.T) {
	for what, then := range map[string]func(ctx context.Context, led, leads *Election) error{
		"nothing":                       func(context.Context, *Election, *Election) error { return nil },
		"the maker asks":                func(ctx context.Context, led, _ *Election) error { return led.Verify(ctx) },
		"the maker proclaims":           func(ctx context.Context, led, _ *Election) error { return led.Proclaim(ctx, "two") },
		"the maker proclaims its value": func(ctx context.Context, led, _ *Election) error { return led.Proclaim(ctx, "one") },
		"the other proclaims":           func(ctx context.Context, _, leads *Election) error { return leads.Proclaim(ctx, "two") },
		"both proclaim, the other first": func(ctx context.Context, led, leads *Election) error {
			return errors.Join(leads.Proclaim(ctx, "two"), led.Proclaim(ctx, "two"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(6*time.Second))
				m, led := lockedAs(t, s, "m"), NewElection(s, "led")
				require.NoError(t, led.Campaign(t.Context(), "one"))
				other := e.session(t, WithLease(s.Lease()))
				has, leads := NewMutex(other, "m"), NewElection(other, "led")
				require.NoError(t, has.Resume(t.Context(), m.Key(), m.Token()))
				require.NoError(t, leads.Resume(t.Context(), led.Key(), led.Token()))
				require.NoError(t, then(t.Context(), led, leads))
				time.Sleep(6 * time.Second)
				require.ErrorIs(t, context.Cause(leads.Context()), ErrLost)
				require.ErrorIs(t, has.Unlock(t.Context()), ErrLost)
				require.NoError(t, led.Verify(t.Context()))
				require.NoError(t, m.Unlock(t.Context()))
				require.NoError(t, led.Resign(t.Context()))
				require.Empty(t, e.Keys("m/"))
				require.Empty(t, e.Keys("led/"))
			})
		})
	}
}

// Also where it had proclaimed another value before, without an answer.
func TestTimeWhoMadeTheLeaseKeepsItsLeadAfterAProclaimWithoutAnAnswer(t *testing.T) {
	for what, then := range map[string]func(ctx context.Context, led *Election) error{
		"nothing":   func(context.Context, *Election) error { return nil },
		"proclaims": func(ctx context.Context, led *Election) error { return led.Proclaim(ctx, "two") },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(6*time.Second))
				led := NewElection(s, "led")
				require.NoError(t, led.Campaign(t.Context(), "one"))
				e.Judge(func(r memetcd.Request) memetcd.Verdict { return memetcd.Verdict{AnswerLost: r.Write} })
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, led.Proclaim(ctx, "two"), context.DeadlineExceeded)
				e.Judge(e.judge)
				leads := NewElection(e.session(t, WithLease(s.Lease())), "led")
				now, err := leads.Leader(t.Context())
				require.NoError(t, err)
				require.Equal(t, "two", now.Value)
				require.NoError(t, leads.Resume(t.Context(), now.Key, now.Modified))
				require.NoError(t, then(t.Context(), led))
				time.Sleep(6 * time.Second)
				require.ErrorIs(t, context.Cause(leads.Context()), ErrLost)
				require.NoError(t, led.Verify(t.Context()))
			})
		})
	}
}

// What is on another lease is nobody's Proclaim.
func TestTimeATakeUpIsNotTakenForAProclaimWithoutAnAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(6*time.Second))
		led := NewElection(s, "led")
		require.NoError(t, led.Campaign(t.Context(), "one"))
		e.only("write", fault{lost: true})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, led.Proclaim(ctx, "one"), context.DeadlineExceeded)
		e.bends(nil)
		leads := NewElection(e.session(t), "led")
		require.NoError(t, leads.Resume(t.Context(), led.Key(), led.Token()))
		time.Sleep(3 * time.Second)
		require.ErrorIs(t, context.Cause(led.Context()), ErrLost)
		require.NoError(t, leads.Verify(t.Context()))
	})
}
