package guides_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

// nightly runs report unless another machine runs it, or has run it in the last hour.
func nightly(ctx context.Context, s *etcdlock.Session, report func(ctx context.Context) error) error {
	m := etcdlock.NewMutex(s, "/cron/report")
	err := m.TryDo(ctx, func(ctx context.Context) error { // this ctx ends with the hold, too
		if err := report(ctx); err != nil {
			return err // the lock is released: another try may run it
		}
		return m.UnlockAfter(context.WithoutCancel(ctx), time.Hour) // done, and nobody does it again before that
	})
	if errors.Is(err, etcdlock.ErrLocked) {
		return nil // the error names who has it
	}
	return err // if etcd is away, say, nothing was run
}

// poll asks for work every minute. A minute that comes while another machine is at work is left out.
func poll(ctx context.Context, s *etcdlock.Session, look func(ctx context.Context) error) error {
	m := etcdlock.NewMutex(s, "/cron/poll")
	for tick := time.NewTicker(time.Minute); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := m.TryDo(ctx, look); err != nil && !errors.Is(err, etcdlock.ErrLocked) {
			return err
		}
	}
}

func TestTheReportIsRunOnceANight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		ran := 0
		report := func(context.Context) error { ran++; return nil }

		first := etcd.Session()
		require.NoError(t, nightly(t.Context(), first, report))
		require.NoError(t, first.Close(), "its process ends")
		require.NoError(t, nightly(t.Context(), etcd.Session(), report), "a machine whose clock is behind")
		time.Sleep(59 * time.Minute)
		require.NoError(t, nightly(t.Context(), etcd.Session(), report))
		require.Equal(t, 1, ran)

		time.Sleep(23 * time.Hour)
		require.NoError(t, nightly(t.Context(), etcd.Session(), report), "the next night")
		require.Equal(t, 2, ran)
	})
}

func TestAReportThatFailedMayBeRunAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		failure := errors.New("no paper")
		require.ErrorIs(t, nightly(t.Context(), etcd.Session(), func(context.Context) error { return failure }), failure)
		ran := false
		require.NoError(t, nightly(t.Context(), etcd.Session(), func(context.Context) error { ran = true; return nil }))
		require.True(t, ran)
	})
}

func TestTheReportIsStoppedWhenItsLockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		err := nightly(t.Context(), etcd.Session(), func(ctx context.Context) error {
			etcd.Cut()
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Minute):
				return errors.New("not stopped")
			}
		})
		require.ErrorIs(t, err, etcdlock.ErrLost)
		require.NotContains(t, err.Error(), "not stopped")
	})
}

func TestAPollComesOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer cancel()
		looks := make(chan int, 100)
		ended := make(chan error, 2)
		for machine := range 2 {
			s := etcd.Session()
			go func() {
				ended <- poll(ctx, s, func(ctx context.Context) error {
					looks <- machine
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
					return nil
				})
			}()
		}
		for range 2 {
			require.ErrorIs(t, <-ended, context.DeadlineExceeded)
		}
		require.Len(t, looks, 10)
	})
}
