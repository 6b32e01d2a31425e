package memetcd_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/embedded"
	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// inBubble runs f in fake time with a cluster of three and a client of it.
func inBubble(t *testing.T, f func(t *testing.T, s *memetcd.Server, c *clientv3.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := memetcd.New(memetcd.Config{Members: 3})
		c := s.Client(context.WithoutCancel(t.Context()))
		f(t, s, c)
		require.ErrorIs(t, c.Close(), context.Canceled)
		s.Close()
		time.Sleep(time.Minute) // whoever is about to end
	})
}

// puts bends what happens to puts alone.
func puts(s *memetcd.Server, v memetcd.Verdict) {
	s.Judge(func(r memetcd.Request) memetcd.Verdict {
		if r.Kind == memetcd.Put {
			return v
		}
		return memetcd.Verdict{}
	})
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestARequestGoesOnWhenItsSenderHasLeft(t *testing.T) {
	for name, c := range map[string]struct {
		verdict memetcd.Verdict
		arrives []time.Duration // at which the key changes
	}{
		"late":        {memetcd.Verdict{Delay: 5 * time.Second}, []time.Duration{5 * time.Second}},
		"never":       {memetcd.Verdict{Lost: true}, nil},
		"answer lost": {memetcd.Verdict{AnswerLost: true}, []time.Duration{0}},
		"answer late": {memetcd.Verdict{AnswerDelay: 5 * time.Second}, []time.Duration{0}},
		"twice": {
			memetcd.Verdict{AnswerLost: true, Again: []time.Duration{3 * time.Second}}, []time.Duration{0, 3 * time.Second},
		},
		"refused too late": {memetcd.Verdict{Refuse: rpctypes.ErrGRPCNoSpace, Delay: 5 * time.Second}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memetcd.Server, client *clientv3.Client) {
				begin := time.Now()
				puts(s, c.verdict)
				_, err := client.Put(within(t, time.Second), "k", "v")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(begin))
				time.Sleep(time.Minute)
				var arrived []time.Duration
				for _, c := range s.History() {
					arrived = append(arrived, c.At.Sub(begin))
				}
				require.Equal(t, c.arrives, arrived)
			})
		})
	}
}

func TestARefusalAndAnAnswerInBetweenAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		puts(s, memetcd.Verdict{Refuse: rpctypes.ErrGRPCNoSpace})
		_, err := c.Put(t.Context(), "k", "v")
		require.ErrorIs(t, err, rpctypes.ErrNoSpace)
		require.Empty(t, s.History())
		puts(s, memetcd.Verdict{AnswerError: status.Error(codes.DeadlineExceeded, "somebody's patience")})
		_, err = c.Put(t.Context(), "k", "v")
		require.Equal(t, codes.DeadlineExceeded, status.Code(err))
		require.Len(t, s.History(), 1)
	})
}

func TestALeaseEndsWhenItsTimeIsUpByTheServersClock(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		l, err := c.Grant(t.Context(), 5)
		require.NoError(t, err)
		_, err = c.Put(t.Context(), "k", "v", clientv3.WithLease(l.ID))
		require.NoError(t, err)
		time.Sleep(4 * time.Second)
		_, err = c.KeepAliveOnce(t.Context(), l.ID)
		require.NoError(t, err)
		time.Sleep(5*time.Second - 1)
		require.NotNil(t, s.Key("k"))
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Nil(t, s.Key("k"))
		_, err = c.KeepAliveOnce(t.Context(), l.ID)
		require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)

		_, err = c.Grant(t.Context(), 5)
		require.NoError(t, err)
		s.Advance(4 * time.Second)
		require.NotEmpty(t, s.Leases())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Empty(t, s.Leases())
		require.Equal(t, memetcd.ByExpiry, s.History()[1].Cause)
	})
}

func TestAMemberThatLagsKnowsThePast(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		watch := c.Watch(t.Context(), "k", clientv3.WithCreatedNotify())
		require.True(t, (<-watch).Created)
		for i := range 3 {
			s.Lag(i)
		}
		s.Put("k", "v", 0)
		got, err := c.Get(t.Context(), "k", clientv3.WithSerializable())
		require.NoError(t, err)
		require.Empty(t, got.Kvs)
		_, err = c.Get(t.Context(), "k", clientv3.WithSerializable(), clientv3.WithRev(2))
		require.ErrorIs(t, err, rpctypes.ErrFutureRev)
		_, err = c.Get(within(t, time.Second), "k")
		require.ErrorIs(t, err, context.DeadlineExceeded, "a linearizable read waits")
		require.Empty(t, watch)
		for i := range 3 {
			s.Thaw(i)
		}
		require.Equal(t, int64(2), (<-watch).Header.Revision)
		got, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Len(t, got.Kvs, 1)
	})
}

func TestAFrozenMemberTakesRequestsAtItsThaw(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		for i := range 3 {
			s.Freeze(i)
		}
		_, err := c.Put(within(t, time.Second), "k", "v")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Empty(t, s.History())
		for i := range 3 {
			s.Thaw(i)
		}
		synctest.Wait()
		require.Len(t, s.History(), 1)
	})
}

func TestAWatchGoesOnAfterItsStreamHasBroken(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		watch := c.Watch(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		require.True(t, (<-watch).Created)
		s.BreakStreams(0)
		s.Put("k1", "v", 0)
		s.Put("k2", "v", 0)
		s.DeletePrefix("k")
		var told []string
		for len(told) < 4 {
			for _, ev := range (<-watch).Events {
				told = append(told, ev.Type.String()+string(ev.Kv.Key))
			}
		}
		require.Equal(t, []string{"PUTk1", "PUTk2", "DELETEk1", "DELETEk2"}, told)
		s.BreakStreams(0)
		s.Put("k", "v", 0)
		s.Put("k", "v", 0)
		s.Compact(s.Rev())
		require.ErrorIs(t, func() error { r := <-watch; return r.Err() }(), rpctypes.ErrCompacted)
	})
}

func TestADeletionOfManyKeysIsOneAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memetcd.Server, c *clientv3.Client) {
		s.Put("k1", "v", 0)
		s.Put("k2", "v", 0)
		watch := c.Watch(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		require.True(t, (<-watch).Created)
		s.DeletePrefix("k")
		require.Len(t, (<-watch).Events, 2)
	})
}

// A client that was closed, the real one and that of the etcd in memory.
func TestAClosedClientAnswersAsTheRealOneDoes(t *testing.T) {
	etcd, err := embedded.Start(t.Context())
	require.NoError(t, err)
	defer etcd.Close()
	real, err := embedded.Dial(etcd.Endpoints()...)
	require.NoError(t, err)
	s := memetcd.New(memetcd.Config{})
	defer s.Close()
	type answers struct {
		get, keepAlive, watch string
		took                  time.Duration
	}
	ask := func(c *clientv3.Client) (a answers) {
		lease, err := c.Grant(t.Context(), 60)
		require.NoError(t, err)
		events := c.Watch(t.Context(), "k", clientv3.WithCreatedNotify())
		require.True(t, (<-events).Created)
		require.ErrorIs(t, c.Close(), map[bool]error{true: nil, false: context.Canceled}[c == real])
		for resp := range events {
			a.watch += "told: " + resp.Err().Error()
		}
		for resp := range c.Watch(t.Context(), "k") {
			a.watch += "again: " + resp.Err().Error()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begin := time.Now()
		_, err = c.Get(ctx, "k")
		a.get, a.took = err.Error(), time.Since(begin)
		_, err = c.KeepAliveOnce(ctx, lease.ID)
		a.keepAlive = err.Error()
		return a
	}
	want, got := ask(real), ask(s.Client(t.Context()))
	require.InDelta(t, want.took, got.took, float64(time.Second), "the client goes on trying for a while")
	want.took, got.took = 0, 0
	require.Equal(t, want, got)
}
