package etcdlock

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// Leases that the Session did not make, in fake time.

// granted is a lease of ttl that somebody else has made.
func granted(t *testing.T, e *etcd, ttl time.Duration) (*clientv3.Client, clientv3.LeaseID) {
	t.Helper()
	client := e.client(t)
	resp, err := client.Grant(t.Context(), int64(ttl/time.Second))
	require.NoError(t, err)
	return client, resp.ID
}

func TestTimeAGivenLeaseIsRenewedBeforeItIsTrusted(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, 10*time.Second)
		time.Sleep(8 * time.Second)
		e.only("keepalive", fault{after: time.Second}) // it takes effect at once
		sent := time.Now()
		s, err := NewSession(t.Context(), client, WithLease(id))
		require.NoError(t, err)
		require.Equal(t, id, s.Lease())
		require.Equal(t, 10*time.Second, s.TTL())
		require.EqualValues(t, 1, e.count("keepalive"))
		require.EqualValues(t, 1, e.count("read"))
		m := NewMutex(s, "given")
		require.NoError(t, m.Lock(t.Context()))
		e.away()
		<-m.Context().Done()
		require.Equal(t, 9500*time.Millisecond, time.Since(sent), "counted from before the two requests of that renewal")
		require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
		e.bends(nil)
		require.NoError(t, s.Close())
	})
}

// etcd has decided to revoke the lease, and acknowledges a renewal all the same: nothing is relied on.
func TestTimeAGivenLeaseThatIsAboutToEndIsNotTrustedAtOnce(t *testing.T) {
	for name, revoked := range map[string]bool{"and lives": false, "and goes a little later": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				client, id := granted(t, e, 10*time.Second)
				time.Sleep(9500 * time.Millisecond)
				if revoked {
					time.AfterFunc(500*time.Millisecond, func() { e.Revoke(int64(id)) })
				}
				s, err := NewSession(t.Context(), client, WithLease(id))
				if revoked {
					require.ErrorIs(t, err, ErrLeaseLost)
					return
				}
				require.NoError(t, err)
				require.EqualValues(t, 2, e.count("keepalive"))
				e.away()
				sent := time.Now()
				<-s.LeaseContext().Done()
				require.Equal(t, 9500*time.Millisecond, time.Since(sent), "counted from the second")
				e.bends(nil)
				require.NoError(t, s.Close())
			})
		})
	}
}

func TestTimeAGivenLeaseThatIsGoneIsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, 10*time.Second)
		// No renewal is answered while the lease lives.
		e.only("keepalive", fault{lost: true})
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		_, err := NewSession(ctx, client, WithLease(id))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrLeaseLost, "nobody has said so")
		// It ends while NewSession tries.
		time.AfterFunc(3*time.Second, func() { e.bends(nil) })
		_, err = NewSession(t.Context(), client, WithLease(id))
		require.ErrorIs(t, err, ErrLeaseLost)
		require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
		for _, none := range []clientv3.LeaseID{-1, 77} {
			_, err = NewSession(t.Context(), client, WithLease(none))
			require.ErrorIs(t, err, ErrLeaseLost)
		}
		_, err = NewSession(t.Context(), client, WithLease(0))
		require.ErrorContains(t, err, "lease 0")
		_, err = NewSession(t.Context(), client, WithLease(id), WithoutLease())
		require.ErrorContains(t, err, "a Session has a lease or it has none")
	})
}

// A leader that was deposed while it was frozen acknowledges what prolongs nothing, or has never heard of the lease.
func TestTimeOfAGivenLeaseTheWordOfAnOlderTermDoesNotCount(t *testing.T) {
	for name, word := range map[string]fault{"that it is renewed": {}, "that there is no such lease": {never: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				client, id := granted(t, e, 10*time.Second)
				e.bends(func(call string) fault {
					if call == "keepalive" {
						return word
					}
					return fault{newer: 1}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := NewSession(ctx, client, WithLease(id))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, ErrLeaseLost)
				e.bends(nil)
				s, err := NewSession(t.Context(), client, WithLease(id))
				require.NoError(t, err)
				require.NoError(t, s.Close())
			})
		})
	}
}

// The loss of a given lease ends the Session. Somebody else still renews the lease: so it is not revoked, and what this
// Session had on it is deleted.
func TestTimeAGivenLeaseThatIsLostEndsTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, 10*time.Second)
		owner := e.client(t)
		stop := make(chan struct{})
		renewed := make(chan struct{})
		go func() {
			defer close(renewed)
			for tick := time.NewTicker(time.Second); ; {
				select {
				case <-tick.C:
					e.Renew(int64(id))
				case <-stop:
					return
				}
			}
		}()
		_, err := owner.Put(t.Context(), "theirs", "", clientv3.WithLease(id))
		require.NoError(t, err)
		first := NewMutex(e.session(t), "waits")
		require.NoError(t, first.Lock(t.Context()))
		s, err := NewSession(t.Context(), client, WithLease(id))
		require.NoError(t, err)
		m := NewMutex(s, "held")
		require.NoError(t, m.Lock(t.Context()))
		waits := make(chan error, 1)
		go func() { waits <- NewMutex(s, "waits").Lock(context.Background()) }()
		synctest.Wait()
		e.only("keepalive", fault{lost: true})
		over := s.LeaseContext()
		<-over.Done()
		require.ErrorIs(t, context.Cause(over), ErrLost)
		require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
		require.ErrorIs(t, <-waits, ErrLeaseLost)
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		require.ErrorIs(t, m.Lock(t.Context()), ErrLeaseLost)
		leader, err := NewElection(s, "held").Leader(t.Context())
		require.NoError(t, err, "it can be asked")
		require.Equal(t, id, leader.Lease)
		time.Sleep(time.Second) // the margin is half of it
		require.Empty(t, e.Keys("held/"))
		require.Len(t, e.Keys("waits/"), 1)
		require.True(t, e.has("theirs"))
		require.Zero(t, e.count("revoke"))
		require.NoError(t, s.Close())
		_, err = NewElection(s, "held").Leader(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		close(stop)
		<-renewed
	})
}

// The tickets of several Sessions on one lease have names of their own, whatever the Sessions do.
func TestTimeSessionsOnOneLeaseExcludeEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		maker := e.session(t, WithTTL(10*time.Second))
		held := NewMutex(maker, "shared")
		require.NoError(t, held.Lock(t.Context()))
		elsewhere := NewMutex(maker, "elsewhere")
		require.NoError(t, elsewhere.Lock(t.Context()))
		for range 2 {
			s, err := NewSession(t.Context(), e.client(t), WithLease(maker.Lease()))
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Orphan()) }()
			require.ErrorIs(t, NewMutex(s, "shared").TryLock(t.Context()), ErrLocked)
			// A put whose answer is lost starts sweeps.
			e.only("write", fault{after: time.Minute})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.Error(t, NewMutex(s, "elsewhere").Lock(ctx))
			e.bends(nil)
		}
		time.Sleep(10 * time.Second)
		require.NotZero(t, e.count("ttl"), "swept")
		require.Len(t, e.Keys("elsewhere/"), 1, "what was lost is swept")
		require.NoError(t, held.Verify(t.Context()))
		require.NoError(t, elsewhere.Verify(t.Context()))
	})
}

func TestTimeCloseRevokesAGivenLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, time.Minute)
		s, err := NewSession(t.Context(), client, WithLease(id), WithTTL(10*time.Second))
		require.NoError(t, err)
		require.NoError(t, NewMutex(s, "n").Lock(t.Context()))
		ctx := s.LeaseContext()
		require.NoError(t, s.Close())
		require.ErrorIs(t, context.Cause(ctx), ErrClosed)
		require.Empty(t, e.Leases())
		require.Empty(t, e.Keys("n/"))
	})
}

// With a TTL that is said, the smaller counts: what the member that answered makes of it may be more than another does.
func TestTimeOfAGivenLeaseTheSmallerTTLCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, time.Minute)
		s, err := NewSession(t.Context(), client, WithLease(id), WithTTL(10*time.Second))
		require.NoError(t, err)
		sent := time.Now()
		e.away()
		<-s.LeaseContext().Done()
		require.Equal(t, 9500*time.Millisecond, time.Since(sent))
		e.bends(nil)
		require.NoError(t, s.Close())
		_, err = NewSession(t.Context(), client, WithLease(id), WithMargin(16*time.Second))
		require.ErrorContains(t, err, "more than a quarter")
	})
}

func TestTimeOrphanKeepsWhatIsHeldAndDeletesWhatWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		other := e.session(t, WithTTL(10*time.Second))
		first := NewMutex(other, "waits")
		require.NoError(t, first.Lock(t.Context()))
		s, err := NewSession(t.Context(), e.client(t), WithTTL(10*time.Second))
		require.NoError(t, err)
		m, led := NewMutex(s, "held"), NewElection(s, "led")
		require.NoError(t, m.Lock(t.Context()))
		require.NoError(t, led.Campaign(t.Context(), "one"))
		waits := make(chan error, 1)
		go func() { waits <- NewMutex(s, "waits").Lock(context.Background()) }()
		var did error
		did2 := make(chan error, 1)
		go func() {
			did2 <- NewMutex(s, "done").Do(context.Background(), func(ctx context.Context) error {
				<-ctx.Done()
				did = context.Cause(ctx)
				time.Sleep(time.Second)
				return nil
			})
		}()
		seen := make(chan Leader, 10)
		watched := make(chan error, 1)
		go func() {
			var last error
			for l, err := range led.Observe(context.Background()) {
				if last = err; err == nil {
					seen <- l
				}
			}
			watched <- last
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, s.Orphan())
		require.Equal(t, time.Second, time.Since(began), "it waits for the function of Do")
		require.ErrorIs(t, did, ErrNoLease)
		require.ErrorIs(t, <-did2, ErrNoLease)
		require.ErrorIs(t, <-waits, ErrNoLease)
		require.ErrorIs(t, context.Cause(m.Context()), ErrNoLease)
		require.ErrorIs(t, context.Cause(s.LeaseContext()), ErrNoLease)
		require.Len(t, e.Keys("waits/"), 1)
		require.Empty(t, e.Keys("done/"))
		require.Len(t, e.Keys("held/"), 1)
		require.Len(t, e.Keys("led/"), 1)
		for _, err := range []error{m.Lock(t.Context()), m.Unlock(t.Context()), led.Resign(t.Context()), led.Proclaim(t.Context(), "two"),
			NewElection(s, "led").Campaign(t.Context(), "three")} {
			require.ErrorIs(t, err, ErrNoLease)
		}
		holder, err := m.Holder(t.Context())
		require.NoError(t, err)
		require.Equal(t, s.Lease(), holder.Lease)
		require.Equal(t, "one", (<-seen).Value)
		n := e.count("keepalive")
		time.Sleep(11 * time.Second) // a TTL after the last renewal, all is gone
		require.LessOrEqual(t, e.count("keepalive"), n+4, "of the other Session alone")
		require.Equal(t, Leader{}, <-seen, "and that is told")
		require.Empty(t, e.Keys("held/"))
		require.NoError(t, s.Orphan())
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-watched, ErrClosed)
		_, err = m.Holder(t.Context())
		require.ErrorIs(t, err, ErrClosed)
	})
}

func TestTimeOrphanWithoutEtcdReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, err := NewSession(t.Context(), e.client(t), WithTTL(time.Minute))
		require.NoError(t, err)
		require.NoError(t, NewMutex(s, "held").Lock(t.Context()))
		e.away()
		began := time.Now()
		require.NoError(t, s.Orphan(), "there is nothing to delete")
		require.Less(t, time.Since(began), time.Second)
	})
}

func TestTimeASessionWithoutALeaseAsksAndTakesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		led := NewElection(e.session(t), "led")
		require.NoError(t, led.Campaign(t.Context(), "one"))
		n := e.count("")
		s, err := NewSession(t.Context(), e.client(t), WithoutLease())
		require.NoError(t, err)
		require.Equal(t, n, e.count(""), "it costs nothing")
		require.Zero(t, s.Lease())
		l, err := NewElection(s, "led").Leader(t.Context())
		require.NoError(t, err)
		require.Equal(t, Leader{Value: "one", Token: led.Token(), Key: led.Key(), Lease: led.s.Lease(), Modified: led.Token(), Version: 1}, l)
		for l, err := range NewElection(s, "led").Observe(t.Context()) {
			require.NoError(t, err)
			require.Equal(t, "one", l.Value)
			break
		}
		require.ErrorIs(t, NewMutex(s, "m").Lock(t.Context()), ErrNoLease)
		require.ErrorIs(t, NewMutex(s, "m").TryLock(t.Context()), ErrNoLease)
		require.Panics(t, NewMutex(s, "m").Locker().Lock)
		require.NoError(t, s.Close())
	})
}

func TestALeaseContextIsThatOfTheLeaseOfTheMoment(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(10*time.Second))
		first, id := s.LeaseContext(), s.Lease()
		require.NoError(t, first.Err())
		child, cancel := context.WithCancel(first)
		defer cancel()
		e.Revoke(int64(id))
		require.NoError(t, NewMutex(s, "n").Lock(t.Context()), "on the next lease")
		require.ErrorIs(t, context.Cause(first), ErrLost)
		require.ErrorIs(t, context.Cause(child), ErrLost)
		require.NotEqual(t, id, s.Lease())
		require.NoError(t, s.LeaseContext().Err())
		// It asks the clock: after a suspend the timer has not run.
		second := s.LeaseContext()
		e.slept.Store(int64(time.Minute))
		require.Error(t, second.Err())
	})
}

// names of tickets under a given lease.
func TestTimeAGivenLeasesNamesAreFarFromItsMakers(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		maker := e.session(t)
		s, err := NewSession(t.Context(), e.client(t), WithLease(maker.Lease()))
		require.NoError(t, err)
		m := NewMutex(s, "n")
		for range 3 {
			require.NoError(t, m.Lock(t.Context()))
			_, digits, _ := strings.Cut(m.Key(), "-")
			require.GreaterOrEqual(t, len(digits), 10)
			require.NoError(t, m.Unlock(t.Context()))
		}
		require.NoError(t, s.Orphan())
	})
}

// The pattern that NewSession names.
func TestTimeASessionEndsWithAContext(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		for name, end := range map[string]func(*Session) error{"closed": (*Session).Close, "orphaned": (*Session).Orphan} {
			s, err := NewSession(t.Context(), e.client(t))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			context.AfterFunc(ctx, func() { _ = end(s) })
			m := NewMutex(s, name)
			require.NoError(t, m.Lock(t.Context()))
			cancel()
			<-m.Context().Done()
			synctest.Wait()
			require.Equal(t, name == "orphaned", len(e.Keys(name+"/")) == 1)
		}
	})
}

// renewedByAnother renews a lease as its other user does, until the test ends.
func renewedByAnother(t *testing.T, e *etcd, id clientv3.LeaseID) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-tick.C:
				e.Renew(int64(id))
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// What a Session leaves on a lease that others renew would block its names for ever.
func TestTimeOfALostGivenLeaseNothingIsLeft(t *testing.T) {
	for name, after := range map[string]func(t *testing.T, e *etcd, s *Session){
		"Close at once": func(t *testing.T, e *etcd, s *Session) {
			e.bends(nil)
			began := time.Now()
			require.NoError(t, s.Close())
			require.Less(t, time.Since(began), 100*time.Millisecond)
		},
		"Orphan at once": func(t *testing.T, e *etcd, s *Session) {
			e.bends(nil)
			require.NoError(t, s.Orphan())
		},
		"Shutdown at once": func(t *testing.T, e *etcd, s *Session) {
			e.bends(nil)
			require.NoError(t, s.Shutdown(t.Context()))
		},
		"after a long outage": func(t *testing.T, e *etcd, s *Session) {
			time.Sleep(time.Minute)
			e.bends(nil)
			time.Sleep(10 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				client, id := granted(t, e, 10*time.Second)
				renewedByAnother(t, e, id)
				s, err := NewSession(t.Context(), client, WithLease(id))
				require.NoError(t, err)
				require.NoError(t, NewMutex(s, "given/unlocked").Lock(t.Context()))
				m := locked(t, s)
				e.away()
				<-m.Context().Done()
				require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
				after(t, e, s)
				require.Empty(t, e.Keys(m.Name()))
				require.Empty(t, e.Keys("given/"))
				require.NoError(t, s.Close())
			})
		})
	}
}

// Functions that run have the margin to stop in; and nobody waits longer than that, and the requests of Close.
func TestTimeCloseOfALostGivenLeaseIsBounded(t *testing.T) {
	for name, end := range map[string]func(*Session) error{
		"Close": (*Session).Close, "Shutdown": func(s *Session) error { return s.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				client, id := granted(t, e, 20*time.Second)
				renewedByAnother(t, e, id)
				s, err := NewSession(t.Context(), client, WithLease(id), WithMargin(2*time.Second))
				require.NoError(t, err)
				did := make(chan error, 1)
				stopped, key := make(chan struct{}), ""
				m := NewMutex(s, "do")
				go func() {
					did <- m.Do(context.Background(), func(ctx context.Context) error {
						key = m.Key()
						<-ctx.Done()
						time.Sleep(2 * time.Second)
						assert.True(t, e.has(key))
						close(stopped)
						return nil
					})
				}()
				synctest.Wait()
				e.only("keepalive", fault{lost: true})
				<-s.LeaseContext().Done()
				began := time.Now()
				require.NoError(t, end(s))
				require.LessOrEqual(t, time.Since(began), 3*time.Second)
				<-stopped
				require.ErrorIs(t, <-did, ErrLost)
				require.False(t, e.has(key))
			})
			inBubble(t, func(t *testing.T, e *etcd) {
				client, id := granted(t, e, 20*time.Second)
				s, err := NewSession(t.Context(), client, WithLease(id))
				require.NoError(t, err)
				require.NoError(t, NewMutex(s, "m").Lock(t.Context()))
				e.away()
				<-s.LeaseContext().Done()
				began, ended := time.Now(), make(chan error, 1)
				go func() { ended <- end(s) }()
				require.NoError(t, soon(t, ended))
				require.LessOrEqual(t, time.Since(began), closeLimit+time.Second)
				e.bends(nil)
			})
		})
	}
}

func TestTimeOrphanTellsWhatMayStillArrive(t *testing.T) {
	for range 20 { // Lock may give up before Orphan looks, or after that
		inBubble(t, func(t *testing.T, e *etcd) {
			client, id := granted(t, e, 10*time.Second)
			s, err := NewSession(t.Context(), client, WithLease(id))
			require.NoError(t, err)
			e.Judge(func(r memetcd.Request) memetcd.Verdict {
				if puts(r) {
					return memetcd.Verdict{Delay: 8 * time.Second}
				}
				return memetcd.Verdict{}
			})
			got := make(chan error, 1)
			go func() { got <- NewMutex(s, "late").Lock(context.Background()) }()
			synctest.Wait()
			require.ErrorContains(t, s.Orphan(), "may still arrive")
			require.ErrorIs(t, <-got, ErrNoLease)
			time.Sleep(8*time.Second + time.Millisecond)
			require.Len(t, e.Keys("late/"), 1, "it has")
		})
	}
}

// A caller has given up, the deletion of its ticket was confirmed, and its put has yet to arrive: no ticket knows of it.
func TestTimeOrphanTellsWhatMayStillArriveThoughNoTicketKnowsOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, err := NewSession(t.Context(), e.client(t), WithTTL(time.Minute))
		require.NoError(t, err)
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if puts(r) {
				return memetcd.Verdict{Delay: 3 * time.Second}
			}
			return memetcd.Verdict{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = LockAll(ctx, s, "late", "later")
		require.Error(t, err)
		time.Sleep(time.Second)
		require.ErrorContains(t, s.Orphan(), "may still arrive")
		time.Sleep(4 * time.Second)
		require.Len(t, e.Keys("late"), 2, "they have")
	})
}

// A caller has given up, the deletion of its ticket was confirmed, and then its put arrived: no ticket knows of it.
func TestTimeOrphanLeavesNoStray(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, err := NewSession(t.Context(), e.client(t), WithTTL(time.Minute))
		require.NoError(t, err)
		held := NewMutex(s, "held")
		require.NoError(t, held.Lock(t.Context()))
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			if puts(r) {
				return memetcd.Verdict{Delay: 3 * time.Second}
			}
			return memetcd.Verdict{}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.Error(t, NewMutex(s, "late").Lock(ctx))
		time.Sleep(4 * time.Second)
		require.Len(t, e.Keys("late/"), 1, "it has arrived, and no renewal has swept yet")
		e.Judge(nil)
		require.ErrorContains(t, s.Orphan(), "may still arrive", "another copy of it")
		require.Empty(t, e.Keys("late/"))
		require.Len(t, e.Keys("held/"), 1)
	})
}

// The etcd client repeats a Proclaim by itself, and the second copy finds what the first has written: that is not another
// Session that has taken the lead up. Of the value that was there before it cannot be told, and the hold ends.
func TestTimeAProclaimThatTheClientRepeatsEndsNoLeadOnAGivenLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		client, id := granted(t, e, 10*time.Second)
		s, err := NewSession(t.Context(), client, WithLease(id))
		require.NoError(t, err)
		el := NewElection(s, "given")
		require.NoError(t, el.Campaign(t.Context(), "before"))
		e.only("write", fault{again: 50 * time.Millisecond})
		require.NoError(t, el.Proclaim(t.Context(), "after"))
		require.NoError(t, el.Context().Err())
		require.ErrorIs(t, el.Proclaim(t.Context(), "after"), ErrLost)
		e.bends(nil)
		require.NoError(t, s.Close())
	})
}

// Orphan goes on the moment the function has returned, and its release comes after that.
func TestTimeOrphanKeepsNothingThatAFunctionRanUnder(t *testing.T) {
	for what, returned := range map[string]bool{"returned": true, "runs on": false} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s, err := NewSession(t.Context(), e.client(t), WithTTL(10*time.Second))
				require.NoError(t, err)
				all, err := LockAll(t.Context(), s, "a", "b")
				require.NoError(t, err)
				kept := lockedAs(t, s, "kept")
				require.True(t, all.ticket.BeginWork())
				if returned {
					all.ticket.EndWork()
				}
				go func() { time.Sleep(time.Second); e.Renew(int64(s.Lease())) }() // somebody else does
				require.NoError(t, s.Orphan())
				require.Empty(t, e.Keys("a/"))
				require.Empty(t, e.Keys("b/"))
				require.True(t, !returned || len(e.Keys(kept.Key())) == 1)
				if !returned {
					all.ticket.EndWork()
				}
				require.ErrorIs(t, all.Release(t.Context()), ErrNoLease)
			})
		})
	}
}
