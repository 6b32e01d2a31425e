package locktest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

// service is what somebody might want to test: it works while it holds its lock, and stops with it.
type service struct {
	lock    *etcdlock.Mutex
	working chan struct{}
}

func (s *service) run(ctx context.Context) error {
	return s.lock.Do(ctx, func(ctx context.Context) error {
		close(s.working)
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// A service that loses its lock in the middle of its work, because etcd does not answer any more.
func TestTheServiceStopsInTimeWhenEtcdIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		s := &service{etcdlock.NewMutex(etcd.Session(), "job"), make(chan struct{})}
		ended := make(chan error)
		go func() { ended <- s.run(t.Context()) }()
		<-s.working

		etcd.Cut()
		begin := time.Now()
		require.ErrorIs(t, <-ended, etcdlock.ErrLost)
		require.LessOrEqual(t, time.Since(begin), 15*time.Second, "before etcd gives the lock to anybody else")
		require.Len(t, etcd.Queue("job"), 1, "as it has not yet")
	})
}
