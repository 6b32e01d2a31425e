package etcdlock

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Shutdown in fake time: what waits ends at once, what holds is let finish.

// shuttingDown calls Shutdown in the background, and returns when it waits.
func shuttingDown(ctx context.Context, s *Session) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	synctest.Wait()
	return ended
}

// soon is what comes within an hour. A Session that goes on keeps the clock going, for ever.
func soon(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Hour):
		require.Fail(t, "it goes on")
		return nil
	}
}

// works runs a function under each of Do and Run, and returns when both run. They end with finish, and not with their
// contexts.
func works(m *Mutex, e *Election) (finish func(), did, ran <-chan error) {
	finished := make(chan struct{})
	do, run := make(chan error, 1), make(chan error, 1)
	go func() { do <- m.Do(context.Background(), func(context.Context) error { <-finished; return nil }) }()
	go func() {
		run <- e.Run(context.Background(), "x", func(context.Context) error { <-finished; return nil })
	}()
	synctest.Wait()
	return func() { close(finished) }, do, run
}

func lockedAs(t *testing.T, s *Session, name string) *Mutex {
	t.Helper()
	m := NewMutex(s, name)
	require.NoError(t, m.Lock(t.Context()))
	return m
}

func TestTimeShutdownLetsWhatHoldsFinish(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		plain := NewMutex(s, "/down/plain")
		require.NoError(t, plain.Lock(t.Context()))
		m, lead := NewMutex(s, "/down/do"), NewElection(s, "/down/run")
		finish, did, ran := works(m, lead)
		other := NewMutex(e.session(t), "/down/do")
		next := make(chan error, 1)
		go func() { next <- other.Lock(context.Background()) }()
		synctest.Wait()
		e.only("write", fault{after: time.Second}) // also while a release is on its way
		down := shuttingDown(t.Context(), s)
		for range 10 { // renewals go on
			until(time.Now().Add(s.TTL()))
			require.NoError(t, plain.Context().Err())
			require.NoError(t, plain.Verify(t.Context()))
			require.NoError(t, lead.Verify(t.Context()))
		}
		require.Empty(t, down)
		finish()
		require.NoError(t, soon(t, did))
		require.NoError(t, soon(t, ran))
		require.NoError(t, soon(t, next))
		require.Empty(t, down, "a plain hold is waited for too")
		e.bends(func(string) fault { return fault{after: 100 * time.Millisecond} })
		require.NoError(t, plain.Unlock(t.Context()), "and its release")
		revoked := time.Now()
		require.NoError(t, soon(t, down))
		require.Equal(t, 100*time.Millisecond, time.Since(revoked), "the lease is revoked then")
		require.Len(t, e.Leases(), 1, "that of the other")
		require.ErrorIs(t, plain.Unlock(t.Context()), ErrClosed)
		require.NoError(t, s.Close())
		require.NoError(t, s.Shutdown(t.Context()))
	})
}

func TestTimeShutdownEndsWhatWaitsAndRefusesWhatComes(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, other := e.session(t), e.session(t)
		own := NewMutex(s, "/down/own")
		require.NoError(t, own.Lock(t.Context()))
		require.NoError(t, NewMutex(other, "/down/other").Lock(t.Context()))
		require.NoError(t, NewElection(other, "/down/led").Campaign(t.Context(), "x"))
		ended := make(chan error, 100)
		n := 0
		start := func(call func(context.Context) error) {
			n++
			go func() { ended <- call(context.Background()) }()
		}
		start(NewMutex(s, "/down/own").Lock)
		for name, call := range calls(NewMutex(s, "/down/other"), NewElection(s, "/down/led")) {
			if name != "TryLock" && name != "Holder" && name != "Waiters" && name != "Leader" {
				start(call)
			}
		}
		synctest.Wait()
		begin := time.Now()
		down := shuttingDown(t.Context(), s)
		for range n {
			require.ErrorIs(t, soon(t, ended), ErrClosed)
		}
		for name, call := range calls(NewMutex(s, "/down/own"), NewElection(s, "/down/led")) {
			require.ErrorIs(t, call(t.Context()), ErrClosed, name)
		}
		synctest.Wait()
		require.Zero(t, time.Since(begin))
		kvs, _, err := NewMutex(other, "/down/other").list(t.Context())
		require.NoError(t, err)
		require.Len(t, kvs, 1, "who waited has left the queue, though the lease goes on")
		require.NoError(t, own.Context().Err())
		require.NoError(t, own.Unlock(t.Context()))
		require.NoError(t, soon(t, down))
	})
}

// Else Shutdown might wait for holds that come later and later.
func TestTimeNothingIsGrantedOnceShutdownHasBegun(t *testing.T) {
	for name, take := range map[string]func(*Mutex, context.Context) error{"Lock": (*Mutex).Lock, "TryLock": (*Mutex).TryLock} {
		t.Run(name+" under way", func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				held := locked(t, s)
				e.only("write", fault{after: time.Second})
				got := make(chan error, 1)
				go func() { got <- take(NewMutex(s, "/down/late"), t.Context()) }()
				synctest.Wait()
				down := shuttingDown(t.Context(), s)
				require.ErrorIs(t, soon(t, got), ErrClosed)
				require.NoError(t, held.Unlock(t.Context()))
				require.NoError(t, soon(t, down))
			})
		})
	}
	t.Run("a handoff in memory", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			for range 100 {
				s := e.session(t)
				held := locked(t, s)
				got := crowd(t.Context(), s, held.Name(), 1)
				s.tasks.Shut(ErrClosed)
				require.NoError(t, held.Unlock(t.Context())) // before the waiter has left, perhaps
				require.ErrorIs(t, soon(t, got), ErrClosed)
				require.NoError(t, s.Shutdown(t.Context()))
			}
		})
	})
}

func TestTimeShutdownEndsWithItsContextAndTheRestBehindIt(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Minute))
		m, lead := NewMutex(s, "/down/do"), NewElection(s, "/down/run")
		finish, did, ran := works(m, lead)
		work := m.Context()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		err := soon(t, shuttingDown(ctx, s))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, `still held: ["/down/do" "/down/run"] and 0 more`)
		require.Equal(t, 10*time.Second, time.Since(begin))
		require.ErrorIs(t, context.Cause(work), ErrClosed)
		require.ErrorIs(t, s.Shutdown(ctx), context.DeadlineExceeded, "another waits no longer than its own context")
		until(time.Now().Add(time.Second))
		require.Zero(t, e.count("revoke"), "the functions run")
		finish()
		require.ErrorIs(t, soon(t, did), ErrClosed)
		require.ErrorIs(t, soon(t, ran), ErrClosed)
		require.NoError(t, s.Close())
		require.Equal(t, 1, e.count("revoke"))
	})
}

func TestTimeShutdownWithoutAnythingToWaitForAsksForTheRevocationOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		e.only("revoke", fault{lost: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err := s.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "not confirmed")
		require.Equal(t, time.Second, time.Since(begin))
		e.bends(nil)
		require.NoError(t, s.Close())
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		require.NoError(t, s.Shutdown(ctx), "it is over")
	})
}

func TestTimeShutdownIsCutShortByCloseAndByTheEndOfTheClient(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*Session) error
		want error
	}{
		"Close":  {(*Session).Close, ErrClosed},
		"client": {func(s *Session) error { return s.client.Close() }, ErrClientClosed},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s, err := NewSession(t.Context(), e.client(t))
				require.NoError(t, err)
				m := locked(t, s)
				held := m.Context()
				first, second := shuttingDown(t.Context(), s), shuttingDown(t.Context(), s)
				begin := time.Now()
				_ = c.end(s)
				require.ErrorIs(t, soon(t, first), c.want)
				require.ErrorIs(t, soon(t, second), c.want)
				require.ErrorIs(t, context.Cause(held), c.want)
				require.NoError(t, s.Close())
				require.NoError(t, s.Shutdown(t.Context()))
				require.Zero(t, time.Since(begin))
				for _, id := range e.Leases() {
					e.Expire(id)
				}
			})
		})
	}
}

func TestTimeALeaseThatIsLostDuringShutdownIsTheLastAndCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var log bytes.Buffer
		s := e.session(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		m := locked(t, s)
		held := m.Context()
		down := shuttingDown(t.Context(), s)
		e.away()
		grants := e.count("grant")
		<-held.Done()
		lost := time.Now()
		require.ErrorIs(t, context.Cause(held), ErrLost)
		require.NoError(t, soon(t, down))
		require.Zero(t, time.Since(lost))
		require.Equal(t, grants, e.count("grant"))
		require.Contains(t, log.String(), "lease lost")
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
	})
}

func TestTimeARemovalIsNoticedAndToldDuringShutdown(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Hour))
		noticed, first := locked(t, s), lockedAs(t, s, "/down/second")
		down := shuttingDown(t.Context(), s)
		until(time.Now().Add(s.TTL() / 20)) // the watch on one of them is open
		held, other := noticed.Context(), first.Context()
		begin := time.Now()
		e.Expire(int64(s.Lease()))
		<-held.Done()
		<-other.Done()
		require.Zero(t, time.Since(begin))
		require.NoError(t, soon(t, down))
		require.ErrorIs(t, first.Unlock(t.Context()), ErrLost)
	})
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Hour))
		m, another := locked(t, s), lockedAs(t, s, "/down/another")
		down := shuttingDown(t.Context(), s)
		e.removeUntold(m.Key())
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost, "and not ErrClosed")
		require.NoError(t, another.Unlock(t.Context()))
		require.NoError(t, soon(t, down))
	})
}

func TestTimeRunAndDoThatEndDuringShutdownTellTheirOwnEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		ctx, cancel := context.WithCancel(t.Context())
		broken := errors.New("broken")
		ran, did := make(chan error, 1), make(chan error, 1)
		work := func(ctx context.Context) error { <-ctx.Done(); return broken }
		go func() { ran <- NewElection(s, "/down/run").Run(ctx, "x", work) }()
		go func() { did <- NewMutex(s, "/down/do").Do(ctx, work) }()
		synctest.Wait()
		down := shuttingDown(t.Context(), s)
		cancel()
		for _, ended := range []chan error{ran, did} {
			err := soon(t, ended)
			require.ErrorIs(t, err, broken)
			require.NotErrorIs(t, err, ErrClosed)
		}
		require.NoError(t, soon(t, down))
	})
}

// What lingers is nobody's hold.
func TestTimeShutdownDoesNotWaitForWhatLingers(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithLinger(time.Hour))
		m := locked(t, s)
		until(time.Now().Add(time.Second)) // for the mirror
		require.NoError(t, m.Unlock(t.Context()))
		held := lockedAs(t, s, "/down/held")
		until(time.Now().Add(time.Second))
		down := shuttingDown(t.Context(), s)
		assert.Empty(t, down)
		require.NoError(t, held.Unlock(t.Context()))
		begin := time.Now()
		require.NoError(t, soon(t, down))
		require.Zero(t, time.Since(begin))
		require.ErrorIs(t, m.Lock(t.Context()), ErrClosed)
	})
}

func TestTimeShutdownKnowsEveryKindOfHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		type take func(s *Session) (*Hold, error)
		ctx := context.Background()
		for name, c := range map[string]struct{ first, second take }{
			"writer": {
				func(s *Session) (*Hold, error) { return NewRWMutex(s, "/down/rw").RLock(ctx) },
				func(s *Session) (*Hold, error) { return nil, NewRWMutex(s, "/down/rw").Lock(ctx) },
			},
			"permit": {
				func(s *Session) (*Hold, error) { return NewSemaphore(s, "/down/sem", 2).AcquireN(ctx, 2) },
				func(s *Session) (*Hold, error) { return NewSemaphore(s, "/down/sem", 2).Acquire(ctx) },
			},
			"several": {
				func(s *Session) (*Hold, error) { return LockAll(ctx, s, "/down/a", "/down/b") },
				func(s *Session) (*Hold, error) { return LockAll(ctx, s, "/down/b", "/down/c") },
			},
		} {
			s := e.session(t)
			h, err := c.first(s)
			require.NoError(t, err, name)
			waits := make(chan error, 1)
			go func() { _, err := c.second(s); waits <- err }()
			synctest.Wait()
			down := shuttingDown(t.Context(), s)
			require.ErrorIs(t, soon(t, waits), ErrClosed, name)
			until(time.Now().Add(2 * s.TTL()))
			require.NoError(t, h.Context().Err(), name)
			require.NoError(t, h.Verify(t.Context()), name)
			require.Empty(t, down, name)
			require.NoError(t, h.Release(t.Context()), name)
			require.NoError(t, soon(t, down), name)
			require.Empty(t, e.Keys("/down/"), name)
		}
	})
}
