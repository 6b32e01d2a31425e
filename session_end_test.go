package etcdlock

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What ends a Session, or keeps it from its next lease for good, is told to everybody at once; in fake time.

// calls are all the calls of a Mutex and an Election that can wait, and Observe and a Locker's.
func calls(m *Mutex, e *Election) map[string]func(context.Context) error {
	nothing := func(context.Context) error { return nil }
	return map[string]func(context.Context) error{
		"Lock":     m.Lock,
		"TryLock":  m.TryLock,
		"Do":       func(ctx context.Context) error { return m.Do(ctx, nothing) },
		"Campaign": func(ctx context.Context) error { return e.Campaign(ctx, "x") },
		"Run":      func(ctx context.Context) error { return NewElection(e.s, e.name).Run(ctx, "x", nothing) },
		"Holder":   func(ctx context.Context) error { _, err := m.Holder(ctx); return err },
		"Waiters":  func(ctx context.Context) error { _, err := m.Waiters(ctx); return err },
		"Leader":   func(ctx context.Context) error { _, err := e.Leader(ctx); return err },
		"Observe": func(ctx context.Context) (last error) {
			for _, err := range e.Observe(ctx) {
				last = err
			}
			return last
		},
	}
}

func TestTimeTheEndOfTheClientIsTheEndOfTheSessionAtOnce(t *testing.T) {
	for when, away := range map[string]bool{"while etcd answers": false, "while it does not": true} {
		t.Run(when, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s, err := NewSession(t.Context(), e.client(t), WithTTL(time.Minute))
				require.NoError(t, err)
				other := e.session(t)
				held, led := NewMutex(s, "/ends/own"), NewElection(s, "/ends/led")
				require.NoError(t, held.Lock(t.Context()))
				require.NoError(t, led.Campaign(t.Context(), "x"))
				require.NoError(t, NewMutex(other, "/ends/other").Lock(t.Context()))
				require.NoError(t, NewElection(other, "/ends/elected").Campaign(t.Context(), "y"))
				type end struct {
					call string
					err  error
				}
				ended := make(chan end, 100)
				n := 0
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				start := func(name string, call func(context.Context) error) {
					n++
					go func() { ended <- end{name, call(ctx)} }()
				}
				start("Lock behind one's own", NewMutex(s, "/ends/own").Lock)
				begin := func() {
					for name, call := range calls(NewMutex(s, "/ends/other"), NewElection(s, "/ends/elected")) {
						if away || name != "TryLock" && name != "Holder" && name != "Waiters" && name != "Leader" {
							start(name, call)
						}
					}
				}
				if !away {
					begin()
				}
				synctest.Wait()
				if away {
					e.away()
					begin()
					start("Verify", led.Verify)
					start("Proclaim", func(ctx context.Context) error { return led.Proclaim(ctx, "z") })
					synctest.Wait()
				}
				lead := led.Context()
				closing := time.Now()
				_ = s.client.Close()
				for range n {
					got := <-ended
					assert.ErrorIs(t, got.err, ErrClientClosed, got.call)
				}
				require.ErrorIs(t, context.Cause(lead), ErrClientClosed)
				<-s.closed // its goroutines have ended
				for name, call := range calls(NewMutex(s, "/ends/own"), NewElection(s, "/ends/led")) {
					assert.ErrorIs(t, call(ctx), ErrClientClosed, name)
				}
				require.ErrorIs(t, led.Resign(ctx), ErrClientClosed)
				require.PanicsWithError(t, `etcdlock: lock "/ends/own": etcdlock: the etcd client is closed`,
					func() { NewMutex(s, "/ends/own").Locker().Lock() })
				require.ErrorIs(t, s.Close(), ErrClientClosed)
				require.NoError(t, s.Close())
				_, err = NewSession(t.Context(), s.client.Client)
				require.ErrorIs(t, err, ErrClientClosed)
				require.Zero(t, time.Since(closing))
			})
		})
	}
}

func TestTimeTheRefusalOfTheNextLeaseIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var log bytes.Buffer
		s := e.session(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		m, n := NewMutex(s, "/ends/m"), NewElection(s, "/ends/e")
		e.away()
		until(time.Now().Add(time.Minute)) // the lease is lost
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- m.Lock(ctx) }()
		synctest.Wait()
		e.only("grant", fault{err: rpctypes.ErrNoSpace})
		require.ErrorIs(t, <-ended, rpctypes.ErrNoSpace, "a call that waited")
		begin := time.Now()
		for name, call := range calls(m, n) {
			switch name {
			case "Holder", "Waiters", "Leader", "Observe":
				continue // they need no lease
			}
			err := call(ctx)
			require.ErrorIs(t, err, rpctypes.ErrNoSpace, name)
			require.ErrorContains(t, err, "/ends/")
		}
		require.Zero(t, time.Since(begin), "and those that come later")
		until(time.Now().Add(time.Minute))
		require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
		locker := make(chan struct{})
		go func() { m.Locker().Lock(); close(locker) }()
		until(time.Now().Add(time.Minute))
		e.bends(nil)
		<-locker
		require.NoError(t, n.Campaign(t.Context(), "x"))
	})
}

func TestTimeCloseDoesNotWaitForTheWorkOfALostHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Minute))
		ended, begun := make(chan error, 2), make(chan *Mutex, 2)
		work, finish := context.WithCancel(context.WithoutCancel(t.Context()))
		defer finish()
		stubborn := func(name string) *Mutex {
			m := NewMutex(s, name)
			go func() {
				ended <- m.Do(context.Background(), func(context.Context) error {
					begun <- m
					<-work.Done() // and not its own context
					return nil
				})
			}()
			return <-begun
		}
		before := s.Lease()
		a := stubborn("/ends/lease")
		e.away()
		<-a.Context().Done()
		e.bends(nil)
		until(time.Now().Add(time.Minute))
		require.NotEqual(t, before, s.Lease(), "the next lease is young")
		b := stubborn("/ends/ticket")
		e.remove(b.Key())
		require.ErrorIs(t, b.Verify(t.Context()), ErrLost)
		begin := time.Now()
		require.NoError(t, s.Close())
		require.Zero(t, time.Since(begin))
		finish()
		require.ErrorIs(t, <-ended, ErrLost)
		require.ErrorIs(t, <-ended, ErrLost)
	})
}

func TestTimeCloseAfterTheLeaseWasLostCostsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		e.away()
		until(time.Now().Add(20 * time.Second))
		begin := time.Now()
		require.NoError(t, s.Close())
		require.Zero(t, time.Since(begin))
	})
}
