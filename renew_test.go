package etcdlock

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Renewals over slow roads and with frozen members, in fake time. For the deadline itself see lease_deadline_test.go.

func TestTimeASlowRoadLosesNoHold(t *testing.T) {
	const ttl = 4 * time.Second
	for _, percent := range []int{1, 9, 10, 11, 20, 24, 28, 32, 36, 40} {
		t.Run(fmt.Sprintf("a round trip of %d %% of the TTL", percent), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				e.bends(func(string) fault { return fault{after: ttl * time.Duration(percent) / 100} })
				s := e.session(t, WithTTL(ttl))
				all := lockedMany(t, s, 1)
				first := s.Lease()
				until(time.Now().Add(10 * time.Minute))
				requireHeld(t, all)
				require.Equal(t, first, s.Lease())
			})
		})
		t.Run(fmt.Sprintf("one that grows to %d %% all of a sudden", percent), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(ttl))
				all := lockedMany(t, s, 1)
				until(time.Now().Add(time.Minute))
				e.bends(func(string) fault { return fault{after: ttl * time.Duration(percent) / 100} })
				until(time.Now().Add(10 * time.Minute))
				requireHeld(t, all)
			})
		})
	}
}

// freeze makes the second of two endpoints freeze: requests go to one and the other in turn, renewals' among them.
func freeze(e *etcd, turn int) {
	e.bends(func(string) fault {
		turn++
		return fault{lost: turn%2 == 0}
	})
}

func TestTimeAFrozenMemberIsLeftEarly(t *testing.T) {
	for _, odd := range []int{0, 1} {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t, WithTTL(10*time.Second))
			all := lockedMany(t, s, 1)
			l := s.leases.current()
			freeze(e, odd)
			for range 100 {
				until(time.Now().Add(l.Due(l.Span() / renewPart)))
				// Whichever of the two went to the frozen member goes to the other one after a tenth of the TTL; should that
				// meet the frozen one too, because both repeat, once more.
				until(time.Now().Add(l.Span()/5 + time.Millisecond))
				require.GreaterOrEqual(t, l.Left(), 9500*time.Millisecond-l.Span()/5-2*time.Millisecond)
			}
			requireHeld(t, all)
		})
	}
}

// Other requests may come at a pace that has every one which is sent alone meet the member that is frozen.
func TestTimeARenewalWhoseEveryRequestMeetsTheFrozenMemberSendsTwoAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(10*time.Second))
		all := lockedMany(t, s, 1)
		first, last := s.Lease(), map[string]time.Time{}
		e.bends(func(call string) fault {
			if call != "read" && call != "keepalive" {
				return fault{}
			}
			alone := !last[call].Equal(time.Now())
			last[call] = time.Now()
			return fault{lost: alone}
		})
		until(time.Now().Add(10 * time.Minute))
		requireHeld(t, all)
		require.Equal(t, first, s.Lease())
	})
}

func TestTimeEveryReadToOneMemberAndEveryKeepAliveToAnotherThatIsFrozen(t *testing.T) {
	for _, stuck := range []string{"keepalive", "read"} {
		t.Run(stuck, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(10*time.Second))
				all := lockedMany(t, s, 1)
				// In step with the renewals, for ever: the first of each is lost, and its repetition is not.
				var last time.Time
				e.bends(func(call string) fault {
					if call != stuck {
						return fault{}
					}
					first := time.Since(last) > time.Second
					last = time.Now()
					return fault{lost: first}
				})
				first := s.Lease()
				until(time.Now().Add(10 * time.Minute))
				requireHeld(t, all)
				require.Equal(t, first, s.Lease())
			})
		})
	}
}

func TestTimeARenewalCountsFromTheEarlierOfItsTwoRequests(t *testing.T) {
	for _, repeated := range []string{"read", "keepalive"} {
		t.Run("where the "+repeated+" was repeated", func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				m := locked(t, s)
				grant := e.at("grant")
				// The first of one kind is lost, its repetition answered, and nothing after that.
				e.bends(func(call string) fault {
					since := time.Since(grant)
					return fault{lost: call == repeated && since < 6*time.Second || since > 7*time.Second}
				})
				until(grant.Add(7 * time.Second))
				require.Equal(t, grant.Add(5*time.Second+1500*time.Millisecond), e.at(repeated), "a tenth of the TTL later")
				requireEnd(t, m.Context(), grant.Add(5*time.Second+trust15))
			})
		})
	}
}

func TestTimeALeaderThatNeverHeardOfTheLeaseDoesNotEndIt(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		begin := e.at("grant")
		e.bends(func(call string) fault {
			if call == "keepalive" { // by an old leader that has just woken, until it learns
				return fault{never: time.Since(begin) < 9*time.Second}
			}
			return fault{newer: 1}
		})
		requireEnd(t, m.Context(), begin.Add(trust15)) // its acknowledgements do not count either
	})
	t.Run("but one of the read's term does", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t)
			m := locked(t, s)
			e.bends(func(string) fault { return fault{never: true, newer: 1} })
			until(e.at("grant").Add(5*time.Second - 1))
			require.NoError(t, m.Context().Err())
			until(e.at("grant").Add(5 * time.Second))
			require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
		})
	})
}

func TestTimeARenewalAtRestIsOneReadAndOneKeepAlive(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		all := lockedMany(t, s, queue.Few)
		until(time.Now().Add(time.Second)) // the Session has begun to watch one of them
		reads, acks := e.count("read"), e.count("keepalive")
		until(time.Now().Add(time.Hour))
		requireHeld(t, all)
		require.Equal(t, 720, e.count("keepalive")-acks)
		require.Equal(t, 720, e.count("read")-reads)
	})
}

func TestTimeALostLeaseIsNotRevokedBeforeItsMarginHasPassed(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		key, end := m.Key(), e.at("grant").Add(trust15)
		e.bends(func(string) fault { return fault{after: time.Hour} }) // every request arrives, no answer does
		requireEnd(t, m.Context(), end)
		until(end.Add(750*time.Millisecond - 1))
		require.True(t, e.has(key), "a holder that takes a moment to stop is alone")
		until(end.Add(750 * time.Millisecond))
		require.False(t, e.has(key))
	})
}

// blocking is a logger whose every line waits.
type blocking <-chan struct{}

func (b blocking) Enabled(context.Context, slog.Level) bool  { return true }
func (b blocking) Handle(context.Context, slog.Record) error { <-b; return nil }
func (b blocking) WithAttrs([]slog.Attr) slog.Handler        { return b }
func (b blocking) WithGroup(string) slog.Handler             { return b }

func TestTimeALogThatBlocksCostsNoHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		stuck := make(chan struct{})
		s := e.session(t, WithLogger(slog.New(blocking(stuck))))
		all := lockedMany(t, s, 1)
		n := 0
		e.bends(func(string) fault {
			if n++; n%3 == 0 {
				return fault{err: errAway}
			}
			return fault{}
		})
		until(time.Now().Add(10 * time.Minute))
		requireHeld(t, all)
		close(stuck)
	})
}
