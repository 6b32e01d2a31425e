package etcdlock

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What hooks may do, and what they cannot do to a Session.

func TestTimeAHookThatBlocksDoesNoHarm(t *testing.T) {
	for name, hooks := range map[string]func(block func()) Hooks{
		"HoldEnded": func(block func()) Hooks { return Hooks{HoldEnded: func(HoldEnd) { block() }} },
		"Renewed":   func(block func()) Hooks { return Hooks{Renewed: func(Renewal) { block() }} },
		"WaitBegun": func(block func()) Hooks { return Hooks{WaitBegun: func(context.Context, Wait) { block() }} },
		"WaitEnded": func(block func()) Hooks { return Hooks{WaitEnded: func(context.Context, WaitEnd) { block() }} },
		"Replaced":  func(block func()) Hooks { return Hooks{LeaseReplaced: func(LeaseReplacement) { block() }} },
		"Overrun":   func(block func()) Hooks { return Hooks{Overrun: func(Overrun) { block() }} },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				let, blocked := make(chan struct{}), 0
				s, err := NewSession(t.Context(), e.client(t), WithTTL(30*time.Second), WithHooks(hooks(func() { blocked++; <-let })))
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				removed, lost, kept := NewMutex(s, "removed"), NewMutex(s, "lost"), NewMutex(s, "kept")

				require.NoError(t, removed.Lock(ctx))
				until(time.Now().Add(5 * time.Second)) // it is watched by then
				e.remove(removed.Key())
				synctest.Wait()
				require.ErrorIs(t, context.Cause(removed.Context()), ErrLost)

				require.NoError(t, lost.Lock(ctx))
				go func() {
					_ = NewMutex(s, "deaf").Do(ctx, func(context.Context) error { <-let; return nil })
				}()
				until(e.at("keepalive").Add(10 * time.Second)) // renewed
				require.NoError(t, lost.Context().Err())
				e.away()
				requireEnd(t, lost.Context(), e.at("keepalive").Add(28500*time.Millisecond))
				e.bends(nil)

				until(time.Now().Add(10 * time.Second))
				require.NoError(t, kept.Lock(ctx))
				until(time.Now().Add(10 * time.Minute))
				require.NoError(t, kept.Context().Err(), "renewals go on")
				require.NoError(t, kept.Unlock(ctx))
				synctest.Wait()
				require.Equal(t, 1, blocked, "one hook is called at a time")

				closed := make(chan error)
				go func() { closed <- s.Close() }()
				close(let)
				require.NoError(t, <-closed)
			})
		})
	}
}

func TestTimeAHookMayUseTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var s *Session
		var again error
		done := make(chan struct{})
		opened := func(of *Session) {
			assert.NoError(t, of.Check())
			s = of
		}
		own := e.session(t, WithHooks(Hooks{Opened: opened, HoldEnded: func(h HoldEnd) {
			if h.Name != "a" {
				return
			}
			defer close(done)
			assert.NoError(t, s.Check())
			assert.NoError(t, s.CheckOverrun(0))
			assert.Zero(t, s.Stats().Held)
			again = NewMutex(s, "b").Do(t.Context(), func(context.Context) error { return nil })
			assert.NoError(t, s.Close(), "it waits for this hook, but not for ever")
		}}))
		require.Same(t, own, s)
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		until(time.Now().Add(5 * time.Second)) // it is watched by then
		e.remove(m.Key())
		<-done
		require.NoError(t, again)
		require.NoError(t, s.Close())
	})
}

func TestTimeEachSetOfHooksIsToldAndCloseWaitsForThem(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var one, two seen
		slow := Hooks{HoldEnded: func(HoldEnd) { time.Sleep(400 * time.Millisecond); two.add("slow") }}
		s := e.session(t, WithHooks(one.waits()), WithHooks(one.holds()), WithHooks(slow), WithHooks(two.holds()), WithHooks(Hooks{}))
		require.NoError(t, NewMutex(s, "a").Lock(t.Context()))
		require.NoError(t, NewMutex(s, "b").Lock(t.Context()))
		one.take()
		require.NoError(t, s.Close())
		a, b := "mutex a held for 0s: closed ", "mutex b held for 0s: closed "
		require.ElementsMatch(t, []string{a, b}, one.lines)
		require.Len(t, two.lines, 4)
		require.Equal(t, []string{"slow", one.lines[0], "slow", one.lines[1]}, two.lines)
	})
}

func TestTimeTooManyEventsAreDroppedAndCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		let, told := make(chan struct{}), 0
		s := e.session(t, WithLinger(time.Hour), WithHooks(Hooks{WaitEnded: func(context.Context, WaitEnd) { told++; <-let }}))
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		until(time.Now().Add(time.Second))
		require.NoError(t, m.Unlock(t.Context()))
		for range eventsKept + 1000 {
			require.NoError(t, m.Lock(t.Context()))
			require.NoError(t, m.Unlock(t.Context()))
		}
		require.EqualValues(t, 1000, s.Stats().EventsDropped)
		close(let)
		synctest.Wait()
		require.Equal(t, eventsKept+1, told)
		require.NoError(t, m.Lock(t.Context()))
		synctest.Wait()
		require.Equal(t, eventsKept+2, told, "and it goes on")
	})
}

// A goroutine of the Session calls hooks, so nobody could recover for them. The test runs itself in another process.
func TestAHookThatPanicsEndsTheProcess(t *testing.T) {
	if os.Getenv("ETCDLOCK_TEST_PANIC") != "" {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t, WithHooks(Hooks{WaitEnded: func(context.Context, WaitEnd) { panic("of a hook") }}))
			_ = NewMutex(s, "a").Lock(t.Context())
			synctest.Wait()
		})
		os.Exit(0)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "ETCDLOCK_TEST_PANIC=1")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	require.Error(t, cmd.Run())
	require.Contains(t, stderr.String(), "panic: of a hook")
	require.Contains(t, stderr.String(), "hooks_harm_test.go", "with the stack of the hook")
}

func TestTimeAHookThatBlocksHoldsUpNoCallOfAClosedSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		let := make(chan struct{})
		s, err := NewSession(t.Context(), e.client(t), WithHooks(Hooks{WaitBegun: func(context.Context, Wait) { <-let }}))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		locks := make(chan error, 1)
		go func() { locks <- NewMutex(s, "a").Lock(t.Context()) }()
		select {
		case err := <-locks:
			require.ErrorIs(t, err, ErrClosed)
		case <-time.After(time.Hour):
			t.Error("Lock waits for the hook")
		}
		close(let)
		synctest.Wait()
	})
}
