package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// What a release says, and when, in fake time.

func TestTimeAReleaseWithoutAContextEndsThoughRenewalsGoOn(t *testing.T) {
	for name, release := range map[string]func(*Mutex, *Election) error{
		"Unlock": func(m *Mutex, _ *Election) error { return m.Unlock(context.Background()) },
		"Resign": func(_ *Mutex, e *Election) error { return e.Resign(context.Background()) },
		"Locker": func(m *Mutex, _ *Election) error { m.Locker().Unlock(); return ErrUnconfirmed },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				m, lead := locked(t, s), NewElection(s, "/time/lead")
				require.NoError(t, lead.Campaign(t.Context(), "v"))
				e.only("write", fault{lost: true})
				ended := make(chan error, 1)
				go func() { ended <- release(m, lead) }()
				select {
				case err := <-ended:
					require.ErrorIs(t, err, ErrUnconfirmed)
				case <-time.After(trust15 + 1): // past the deadline as it was at the call
					require.Fail(t, "it waits on")
				}
				require.NoError(t, s.leases.current().Context().Err(), "the lease is renewed all the while")
			})
		})
	}
}

func TestTimeAReleaseTellsARemovalAlsoWhenAnotherCarriesItsDeletion(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m, next := locked(t, s), NewMutex(s, "/time/lock")
		got := make(chan error, 2)
		go func() { got <- next.Lock(t.Context()) }()
		synctest.Wait()
		e.remove(m.Key())
		slow := true
		e.bends(func(call string) fault {
			if call == "write" && slow {
				slow = false
				return fault{after: 50 * time.Millisecond} // the first deletion is out while the second carries the same
			}
			return fault{}
		})
		released := make(chan error, 1)
		go func() { released <- m.Unlock(t.Context()) }()
		require.NoError(t, <-got, "a handoff in memory")
		require.NoError(t, next.Unlock(t.Context()))
		require.ErrorIs(t, <-released, ErrLost)
	})
}

func TestTimeADeletionThatTheClientRepeatedIsNotTakenForALoss(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		e.only("write", fault{again: 300 * time.Millisecond})
		require.NoError(t, m.Unlock(t.Context()))
		e.bends(nil)
		require.NoError(t, m.Lock(t.Context()))
		e.remove(m.Key())
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost, "one that was answered at once tells")
	})
}

func TestTimeAnUnlockThatFailedCanAlwaysBeAskedHowItWent(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := NewMutex(s, "/time/lock")
		over, cancel := context.WithCancel(t.Context())
		cancel()
		for range 2000 { // the confirmation and the look at the context come in either order
			require.NoError(t, m.Lock(t.Context()))
			if err := m.Unlock(over); err != nil {
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, ErrUnconfirmed)
				require.NoError(t, m.Unlock(t.Context()))
			}
			require.ErrorIs(t, m.Unlock(t.Context()), ErrNotHeld)
		}
	})
}

func TestTimeSeveralMayAskAtOnceHowAnUnlockWent(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := locked(t, e.session(t))
		e.away()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Unlock(ctx), ErrUnconfirmed)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		impatient, asked := make(chan error, 1), make(chan error, 2)
		go func() { impatient <- m.Unlock(ctx) }()
		for range cap(asked) {
			go func() { asked <- m.Unlock(t.Context()) }()
		}
		require.ErrorIs(t, <-impatient, ErrUnconfirmed)
		e.bends(nil)
		require.NoError(t, <-asked)
		require.NoError(t, <-asked)
		require.ErrorIs(t, m.Unlock(t.Context()), ErrNotHeld)
	})
}

func TestTimeDoAndRunEndSoonAfterTheirContext(t *testing.T) {
	for name, run := range map[string]func(context.Context, *Session, func(context.Context) error) error{
		"Do": func(ctx context.Context, s *Session, fn func(context.Context) error) error {
			return NewMutex(s, "do").Do(ctx, fn)
		},
		"Run": func(ctx context.Context, s *Session, fn func(context.Context) error) error {
			return NewElection(s, "run").Run(ctx, "v", fn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(time.Minute))
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				begin := time.Now()
				err := run(ctx, s, func(work context.Context) error {
					e.away()
					<-work.Done()
					return work.Err()
				})
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, ErrUnconfirmed)
				require.LessOrEqual(t, time.Since(begin), 3*time.Second)
			})
		})
	}
}

func TestTimeRunTellsWhatItsFunctionSaid(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		boom := assert.AnError
		lead := NewElection(s, "run")
		ctx, cancel := context.WithCancel(t.Context())
		err := lead.Run(ctx, "v", func(context.Context) error { cancel(); return boom })
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, boom)

		ctx, cancel = context.WithCancel(t.Context())
		err = lead.Run(ctx, "v", func(work context.Context) error {
			e.remove(lead.Key())
			<-work.Done()
			cancel()
			return boom
		})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, boom)
		require.ErrorIs(t, err, ErrLost)

		err = lead.Run(t.Context(), "v", func(work context.Context) error {
			require.NoError(t, lead.Resign(t.Context()))
			require.ErrorIs(t, context.Cause(work), ErrNotLeader)
			return boom
		})
		require.Equal(t, boom, err, "somebody resigned: that is no loss")
	})
}

func TestTimeAGoroutineThatIsLateWithItsHoldEndsNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := NewMutex(s, "/time/lock")
		late, err := m.acquire(t.Context(), "x") // granted, and not yet the value's
		require.NoError(t, err)
		second := make(chan error, 1)
		go func() { second <- m.Lock(t.Context()) }()
		synctest.Wait()
		e.remove(late.Key())
		require.NoError(t, <-second)
		require.Nil(t, m.adopt(late))
		require.NoError(t, m.Context().Err())
		require.NoError(t, m.Verify(t.Context()))
		require.Error(t, late.Hold().Err())
		require.NoError(t, m.Unlock(t.Context()))
		require.Empty(t, e.Keys(""))
	})
}

func TestTimeDoTellsALossAlsoWhenSomebodyElseHasUnlocked(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := NewMutex(s, "/time/lock")
		err := m.Do(t.Context(), func(ctx context.Context) error {
			e.remove(m.Key())
			<-ctx.Done()
			require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
			return nil
		})
		require.ErrorIs(t, err, ErrLost)
	})
}

func TestTimeRunTellsThatItsLossWasFollowedByAnotherCampaign(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		lead := NewElection(s, "/time/lead")
		err := lead.Run(t.Context(), "v", func(ctx context.Context) error {
			e.remove(lead.Key())
			<-ctx.Done()
			require.NoError(t, lead.Campaign(t.Context(), "w"))
			return nil
		})
		require.ErrorIs(t, err, ErrCampaigning, "the lead was lost, and the next one is not its own")
	})
}

// The server has the caller's deadline, too, and may be the first to say that it has passed.
func TestTimeACallThatRunsOutOfTimeSaysSoAlsoWhereTheServerDidFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		timedOut := func(after time.Duration) fault { return fault{err: rpctypes.ErrGRPCTimeout, after: after} }
		e.only("write", timedOut(99*time.Millisecond))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, NewMutex(s, "/time/ours").TryLock(ctx), context.DeadlineExceeded)
		e.only("write", timedOut(0))
		begin := time.Now()
		require.ErrorIs(t, NewMutex(s, "/time/its").TryLock(t.Context()), rpctypes.ErrTimeout, "this was the server's own limit")
		require.Zero(t, time.Since(begin))
	})
}

// Whoever releases takes the hold from the value first, and ends it a moment later.
func TestTimeDoIsToldHowAReleaseWentThatAnotherHasJustBegun(t *testing.T) {
	for what, test := range map[string]struct {
		after time.Duration
		want  error
	}{"Unlock": {0, ErrNotHeld}, "UnlockAfter": {10 * time.Second, nil}} {
		t.Run(what, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				m := NewMutex(open(3*time.Second), "a")
				require.NoError(t, m.Lock(t.Context()))
				h := m.held()
				m.mu.Lock()
				m.hold = nil
				m.mu.Unlock()
				told := make(chan error, 1)
				go func() { told <- m.releaseSoonAfter(t.Context(), h) }()
				synctest.Wait()
				require.NoError(t, h.release(t.Context(), test.after))
				require.ErrorIs(t, <-told, test.want)
				require.Equal(t, test.after > 0, len(etcd.Keys("a/")) > 0)
			})
		})
	}
}
