package etcdlock

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// queueing is an etcd that takes requests one after the other, each for as long as the last one. What comes meanwhile queues, and is
// worked on also if nobody waits for the answer any more.
type queueing struct {
	mu   sync.Mutex
	each time.Duration
	free time.Time // when it has done all that came
}

func (q *queueing) judge(memetcd.Request) memetcd.Verdict {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = later(q.free, time.Now()).Add(q.each)
	return memetcd.Verdict{Delay: time.Until(q.free)}
}

// stand has it do nothing for d.
func (q *queueing) stand(d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = later(q.free, time.Now()).Add(d)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// An etcd that stood still for longer than the TTL is asked for much at once: by renewals that are repeated, and then by
// everybody who wants the next lease. If that were too much, nobody would have one in time again, for ever.
func TestTimeABusyEtcdThatStoodStillComesBack(t *testing.T) {
	const sessions, between, stands = 200, 5 * time.Second, 20 * time.Second
	for _, tt := range []struct {
		load float64 // the part of its time that renewals take, at rest
		well time.Duration
	}{{0.4, 40 * time.Second}, {0.6, 65 * time.Second}} {
		inBubble(t, func(t *testing.T, e *etcd) {
			var all []*Session
			for range sessions {
				all = append(all, e.session(t))
				time.Sleep(between / sessions) // so that renewals come evenly
			}
			q := &queueing{each: time.Duration(tt.load * float64(between/sessions/2))} // two requests for each
			e.Judge(q.judge)
			time.Sleep(20 * time.Second)
			for _, s := range all {
				require.NoError(t, s.Check())
				require.Zero(t, s.Stats().RenewalFailures)
			}
			q.stand(stands)
			time.Sleep(stands)
			for _, s := range all {
				require.ErrorIs(t, s.Check(), ErrLost)
			}
			time.Sleep(tt.well)
			for _, s := range all {
				require.NoError(t, s.Check())
			}
			e.Judge(e.judge) // Close need not wait
		})
	}
}
