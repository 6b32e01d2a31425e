package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The deadline of a hold, to the nanosecond, in fake time.

// trust15 is how long a hold can be relied on under the default TTL of 15 s. A literal, so that it holds the margin.
const trust15 = 14250 * time.Millisecond

// until waits for a moment of the bubble's time and for what that moment starts.
func until(at time.Time) {
	<-time.After(time.Until(at))
	synctest.Wait()
}

// locked returns a Mutex that is held.
func locked(t *testing.T, s *Session) *Mutex {
	t.Helper()
	m := NewMutex(s, "/time/lock")
	require.NoError(t, m.Lock(t.Context()))
	return m
}

// requireEnd checks that a hold lasts until one nanosecond before a moment, and no longer.
func requireEnd(t *testing.T, ctx context.Context, at time.Time) {
	t.Helper()
	until(at.Add(-1))
	require.NoError(t, ctx.Err(), "one nanosecond before the deadline")
	until(at)
	select {
	case <-ctx.Done():
	default:
		require.Fail(t, "held at the deadline")
	}
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	require.ErrorIs(t, context.Cause(ctx), ErrLost)
	until(at.Add(1))
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

func TestTimeSlowAnswersDoNotStretchAHold(t *testing.T) {
	t.Run("the grant's", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			e.only("grant", fault{after: 4 * time.Second})
			s := e.session(t)
			e.bends(func(call string) fault { return fault{lost: call != "write"} })
			m := locked(t, s)
			requireEnd(t, m.Context(), e.at("grant").Add(trust15))
		})
	})
	for _, slow := range []string{"read", "keepalive"} {
		t.Run("the "+slow+"'s of a renewal", func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				m := locked(t, s)
				e.only(slow, fault{after: 1400 * time.Millisecond})
				until(time.Now().Add(30 * time.Second))
				// A renewal that has been answered, and none after it.
				for n := e.count("keepalive"); e.count("keepalive") == n; {
					until(time.Now().Add(time.Millisecond))
				}
				sent := e.at("read")
				e.bends(func(call string) fault {
					return fault{lost: true}
				})
				requireEnd(t, m.Context(), sent.Add(trust15))
			})
		})
	}
}

func TestTimeAFirstRenewalThatNeverComesEndsTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		e.away()
		requireEnd(t, m.Context(), e.at("grant").Add(trust15))
	})
}

// lateRenewal lets every renewal fail at once until the moment, counted from the grant; from there on the first
// keepalive is answered after the delay, and the others are not. It returns the hold.
func lateRenewal(t *testing.T, e *etcd, from, delay time.Duration) *Mutex {
	t.Helper()
	s := e.session(t)
	m := locked(t, s)
	begin, sent := e.at("grant"), time.Time{}
	e.bends(func(call string) fault {
		switch {
		case time.Since(begin) < from:
			return fault{err: errBusy} // the client does not repeat by itself what fails so
		case call == "keepalive" && sent.IsZero():
			sent = time.Now()
			return fault{after: delay}
		}
		return fault{lost: !sent.IsZero() && time.Now().After(sent)}
	})
	return m
}

func TestTimeARenewalAnsweredLateButInTimeKeepsTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := lateRenewal(t, e, 10*time.Second, 3500*time.Millisecond)
		until(e.at("grant").Add(trust15))
		require.NoError(t, m.Context().Err(), "answered before the deadline")
		requireEnd(t, m.Context(), e.at("grant").Add(10*time.Second+trust15)) // the read was answered at once
	})
}

func TestTimeARenewalAnsweredAfterTheDeadlineDoesNotReviveTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := lateRenewal(t, e, 12*time.Second, 3500*time.Millisecond)
		ctx := m.Context()
		requireEnd(t, ctx, e.at("grant").Add(trust15))
		until(e.at("grant").Add(12*time.Second + 3500*time.Millisecond))
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
		require.False(t, m.s.leases.current().Alive(), "nor the lease")
	})
}

func TestTimeARenewalAnsweredAfterASuspendDoesNotReviveTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := lateRenewal(t, e, 12*time.Second, time.Second)
		ctx, l := m.Context(), m.s.leases.current()
		until(e.at("grant").Add(12*time.Second + 600*time.Millisecond)) // the keepalive is on its way
		e.slept.Store(int64(5 * time.Second))
		until(e.at("grant").Add(13 * time.Second)) // the keepalive's answer comes before any timer of ours
		require.False(t, l.Alive())
		require.ErrorIs(t, context.Cause(ctx), ErrLost)
	})
}

func TestTimeAnAcknowledgementFromATermOlderThanItsReadDoesNotCount(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		e.only("read", fault{newer: 1})
		requireEnd(t, m.Context(), e.at("grant").Add(trust15))
		require.Positive(t, e.count("keepalive"))
	})
	t.Run("but one from the same term does", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t)
			m := locked(t, s)
			e.bends(func(string) fault { return fault{newer: 1} })
			until(e.at("grant").Add(time.Hour))
			require.NoError(t, m.Context().Err())
		})
	})
}

func TestTimeTheSmallerOfAskedAndGrantedCounts(t *testing.T) {
	for _, c := range []struct {
		name           string
		asked, granted int64
		trust          time.Duration
	}{
		{"granted more", 10, 12, 9500 * time.Millisecond},
		{"granted much more", 2, 60, 1900 * time.Millisecond},
		{"granted less", 15, 6, 5700 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				e.only("grant", fault{ttl: c.granted})
				s := e.session(t, WithTTL(time.Duration(c.asked)*time.Second))
				require.Equal(t, time.Duration(c.granted)*time.Second, s.TTL())
				m := locked(t, s)
				until(time.Now().Add(10 * time.Minute))
				require.NoError(t, m.Context().Err(), "renewals keep it")
				for n := e.count("keepalive"); e.count("keepalive") == n; {
					until(time.Now().Add(10 * time.Millisecond))
				}
				e.away()
				requireEnd(t, m.Context(), e.at("keepalive").Add(c.trust))
			})
		})
	}
}

func TestTimeEachRenewalsOwnTTLCounts(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		e.bends(func(call string) fault {
			if call == "keepalive" {
				return fault{ttl: 4}
			}
			return fault{lost: e.calls["keepalive"] > 0 && time.Now().After(e.last["keepalive"])}
		})
		until(time.Now().Add(6 * time.Second))
		require.Equal(t, 1, e.count("keepalive"))
		requireEnd(t, m.Context(), e.at("keepalive").Add(3800*time.Millisecond))
	})
}

func TestTimeAskingConsultsTheClockBeforeTheTimerHasRun(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		ask := map[string]func(ctx context.Context) bool{
			"Err":   func(ctx context.Context) bool { return ctx.Err() != nil },
			"Cause": func(ctx context.Context) bool { return context.Cause(ctx) == ErrLost }, //nolint:errorlint // this very value
			"Done": func(ctx context.Context) bool {
				select {
				case <-ctx.Done():
					return true
				default:
					return false
				}
			},
		}
		for name, over := range ask {
			m := NewMutex(s, "/time/"+name)
			require.NoError(t, m.Lock(t.Context()))
			ctx := m.Context()
			require.False(t, over(ctx), name)
			e.slept.Add(int64(20 * time.Second))
			// No time passes in the bubble, so no timer can have run.
			require.True(t, over(ctx), name)
			require.ErrorIs(t, ctx.Err(), context.Canceled)
			require.ErrorIs(t, context.Cause(ctx), ErrLost)
			<-ctx.Done()
			require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		}
	})
}

func TestTimeTheContextOfAHoldHasNoDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := locked(t, e.session(t))
		_, ok := m.Context().Deadline()
		require.False(t, ok)
		child, cancel := context.WithCancel(m.Context())
		defer cancel()
		_, ok = child.Deadline()
		require.False(t, ok)
	})
}
