package guides_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

// ofRedsync is what a piece of work under redsync looks like here.
func ofRedsync(ctx context.Context, client *clientv3.Client, work func(ctx context.Context) error) error {
	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(8*time.Second)) // once in the life of the process
	if err != nil {
		return err
	}
	defer s.Close()
	m := etcdlock.NewMutex(s, "/my-global-mutex")
	wait, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if err := m.Lock(wait); err != nil {
		return err // errors.Is(err, etcdlock.ErrLocked), and who has it
	}
	if err := work(m.Context()); err != nil { // nothing to extend
		return errors.Join(err, m.Unlock(context.WithoutCancel(ctx)))
	}
	return m.Unlock(context.WithoutCancel(ctx)) // errors.Is(err, etcdlock.ErrLost), where it had expired
}

// ofConsul has the shape of Consul's Lock: a channel that stops the wait, and one that tells of the loss.
func ofConsul(m *etcdlock.Mutex, stop <-chan struct{}) (lost <-chan struct{}, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := m.Lock(ctx); err != nil {
		return nil, err // where stop was closed, context.Canceled
	}
	return m.Context().Done(), nil
}

// ofClientGo is what LeaderElector.Run with callbacks looks like here.
func ofClientGo(ctx context.Context, s *etcdlock.Session, start func(ctx context.Context), stopped func(), newLeader func(identity string)) error {
	e := etcdlock.NewElection(s, "/kube-system/my-controller")
	go func() {
		for leader, err := range e.Observe(ctx) {
			if err == nil && leader.Token != 0 {
				newLeader(leader.Value)
			}
		}
	}()
	return e.Run(ctx, "", func(ctx context.Context) error {
		defer stopped()
		start(ctx)   // is waited for, before anybody else leads
		<-ctx.Done() // as there, a start that returns does not end the lead
		return nil
	})
}

func TestMovedFromRedsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		require.NoError(t, ofRedsync(t.Context(), etcd.Client(), func(ctx context.Context) error {
			time.Sleep(time.Minute) // several expiries
			return ctx.Err()
		}))
		defer etcd.Occupy("/my-global-mutex", "another")()
		begin := time.Now()
		err := ofRedsync(t.Context(), etcd.Client(), nil)
		require.ErrorIs(t, err, etcdlock.ErrLocked)
		require.ErrorContains(t, err, "another")
		require.Equal(t, 4*time.Second, time.Since(begin))
	})
}

func TestMovedFromConsul(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		m := etcdlock.NewMutex(etcd.Session(), "/service/lock")
		lost, err := ofConsul(m, nil)
		require.NoError(t, err)
		stop := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(stop) })
		_, err = ofConsul(etcdlock.NewMutex(etcd.Session(), "/service/lock"), stop)
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait() // its ticket goes in the background
		require.Len(t, etcd.Queue("/service/lock"), 1)
		etcd.Cut()
		<-lost
		require.ErrorIs(t, m.Unlock(t.Context()), etcdlock.ErrLost)
	})
}

func TestMovedFromClientGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		began, leaders, ended := make(chan struct{}, 9), make(chan string, 9), make(chan error, 1)
		stops := 0
		s := etcd.Session(etcdlock.WithIdentity("pod-1"))
		go func() {
			ended <- ofClientGo(ctx, s, func(context.Context) { began <- struct{}{} }, func() { stops++ }, func(id string) { leaders <- id })
		}()
		<-began
		require.Equal(t, "pod-1", <-leaders)
		etcd.ExpireLeases()
		<-began // it leads again, without a restart of the process
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.Equal(t, 2, stops)
		require.Empty(t, etcd.Queue("/kube-system/my-controller"))
	})
}
