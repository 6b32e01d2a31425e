package etcdlock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// One of three members stands still, and requests go round the members. So every third would wait for the frozen one: how
// long, and whether the next try goes to it as well, depends on what else is asked at the time, which is random here.
func TestTimeAFrozenMemberHoldsARequestUpOnce(t *testing.T) {
	const (
		once     = 510 * time.Millisecond // a try that is not answered
		twoTries = 2*once + 100*time.Millisecond
	)
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, awake, func(t *testing.T) {
				r, judges := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
				random := func(most time.Duration) time.Duration { return time.Duration(r.Int64N(int64(most))) }
				etcd := memetcd.New(memetcd.Config{Members: 3, Judge: func(memetcd.Request) memetcd.Verdict {
					return memetcd.Verdict{Delay: time.Duration(judges.Int64N(1e6)), AnswerDelay: time.Duration(judges.Int64N(1e6))}
				}})
				defer etcd.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				open := func() *Session {
					s, err := NewSession(ctx, etcd.Client(ctx), WithTTL(4*time.Second), WithLinger(300*time.Millisecond))
					require.NoError(t, err)
					return s
				}
				s, other := open(), open()
				time.Sleep(random(2 * time.Second))
				waitedFor := NewMutex(other, "waited for")
				require.NoError(t, waitedFor.Lock(ctx))
				ended := make(chan error, 1)
				go func() { ended <- NewMutex(s, "waited for").Lock(ctx) }()
				go func() {
					for _, err := range NewElection(s, "observed").Observe(ctx) {
						if err != nil {
							return
						}
					}
				}()
				time.Sleep(random(2 * time.Second))
				frozen := r.IntN(3)
				etcd.Freeze(frozen)
				time.Sleep(random(8 * time.Second)) // the renewals go on

				m := NewMutex(s, "new")
				begin := time.Now()
				for token := int64(-1); token != m.Token(); {
					token = m.Token()
					called := time.Now()
					if token > 0 {
						require.NoError(t, m.Unlock(ctx))
						require.Less(t, time.Since(called), once+30*time.Millisecond)
						called = time.Now()
					}
					require.NoError(t, m.Lock(ctx))
					require.Less(t, time.Since(called), twoTries, "the put, and a look if both copies of it arrived")
					time.Sleep(5 * time.Millisecond)
				}
				require.Less(t, time.Since(begin), 5*time.Second, "it lingers: a watch is open, and a list was read")

				// The waiter learns its turn by a watch, or by the check beside a renewal.
				begin = time.Now()
				require.NoError(t, waitedFor.Unlock(ctx))
				require.NoError(t, <-ended)
				require.Less(t, time.Since(begin), s.TTL()/3+twoTries)

				etcd.Thaw(frozen)
				require.NoError(t, s.Close())
				require.NoError(t, other.Close())
				cancel()
				synctest.Wait()
			})
		})
	}
}

// The other requests of the client come at a pace that makes every try which is sent alone meet the frozen member.
func TestTimeWhatIsNotAnsweredIsTriedTwiceAtOnce(t *testing.T) {
	for call, do := range map[string]func(ctx context.Context, m *Mutex) error{
		"write":    func(ctx context.Context, m *Mutex) error { return NewMutex(m.s, "put").Lock(ctx) },
		"deletion": func(ctx context.Context, m *Mutex) error { return m.Unlock(ctx) },
		"read":     func(ctx context.Context, m *Mutex) error { return m.Verify(ctx) },
		"watch": func(ctx context.Context, m *Mutex) (err error) {
			for _, err = range NewElection(m.s, "observed").Observe(ctx) {
				break
			}
			return err
		},
	} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				m := locked(t, e.session(t, WithTTL(time.Hour)))
				tries := 0
				var last time.Time
				e.bends(func(c string) fault {
					if c != call && (c != "write" || call != "deletion") {
						return fault{}
					}
					tries++
					alone := !time.Now().Equal(last)
					last = time.Now()
					return fault{lost: alone}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
				defer cancel()
				require.NoError(t, do(ctx, m))
				require.Equal(t, 3, tries)
			})
		})
	}
}
