package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdlock/etcdlock"
)

func TestOneLeadsAndTheNextFollows(t *testing.T) {
	client := newClient(t)
	ctx := soon(t)
	nodes := make([]*etcdlock.Election, 3)
	won := make(chan int, 3)
	for i := range nodes {
		nodes[i] = etcdlock.NewElection(newSession(t, client), "/dev/lock")
	}
	_, err := nodes[0].Leader(ctx)
	require.ErrorIs(t, err, etcdlock.ErrNoLeader)
	for i, e := range nodes {
		value := fmt.Sprintf("10.0.0.%d:80", i)
		go func() {
			if assert.NoError(t, e.Campaign(ctx, value)) {
				won <- i
			}
		}()
		eventually(t, func() bool { return len(keysUnder(t, client, "/dev/lock/")) == i+1 }, "node %d is in the queue", i)
	}
	last := int64(0)
	for i, e := range nodes {
		require.Equal(t, i, <-won)
		l, err := nodes[2].Leader(ctx)
		require.NoError(t, err)
		assert.Equal(t, etcdlock.Leader{Value: fmt.Sprintf("10.0.0.%d:80", i), Token: e.Token(), Key: e.Key()}, who(l))
		assert.Greater(t, e.Token(), last)
		last = e.Token()
		require.NoError(t, e.Verify(ctx))
		require.NoError(t, e.Resign(ctx))
		require.ErrorIs(t, e.Verify(ctx), etcdlock.ErrNotLeader)
	}
	require.Empty(t, keysUnder(t, client, "/dev/lock/"))
}

func TestTwoCandidatesOfOneSessionTakeTurnsThroughEtcd(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	a, b := etcdlock.NewElection(s, "turns"), etcdlock.NewElection(s, "turns")
	require.NoError(t, a.Campaign(soon(t), "a"))
	won := make(chan error, 1)
	go func() { won <- b.Campaign(soon(t), "b") }()
	eventually(t, func() bool { return len(keysUnder(t, client, "turns/")) == 2 }, "b waits")
	require.NoError(t, a.Resign(soon(t)))
	require.NoError(t, <-won)
	l, err := a.Leader(soon(t))
	require.NoError(t, err)
	assert.Equal(t, "b", l.Value, "nobody sees a leader that has resigned once the next one leads")
}

func TestElectionMisuse(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithIdentity("me"))
	e, other := etcdlock.NewElection(s, "misuse"), etcdlock.NewElection(s, "misuse")
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrNotLeader)
	require.ErrorIs(t, e.Proclaim(soon(t), "x"), etcdlock.ErrNotLeader)
	require.ErrorIs(t, e.Verify(soon(t)), etcdlock.ErrNotLeader)
	require.ErrorIs(t, context.Cause(e.Context()), etcdlock.ErrNotLeader)
	require.NoError(t, e.Campaign(soon(t), ""))
	l, err := other.Leader(soon(t))
	require.NoError(t, err)
	assert.Equal(t, "me", l.Value)
	require.ErrorIs(t, e.Campaign(soon(t), "again"), etcdlock.ErrCampaigning)

	queued := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { queued <- other.Campaign(ctx, "x") }()
	eventually(t, func() bool { return len(keysUnder(t, client, "misuse/")) == 2 }, "other waits")
	require.ErrorIs(t, other.Proclaim(soon(t), "x"), etcdlock.ErrNotLeader, "a follower")
	require.ErrorIs(t, other.Campaign(soon(t), "x"), etcdlock.ErrCampaigning)
	cancel()
	require.ErrorIs(t, <-queued, context.Canceled)
	require.NoError(t, e.Resign(soon(t)))
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrNotLeader)
}

func TestALostLeadCanBeCampaignedForAgain(t *testing.T) {
	client := newClient(t)
	e := etcdlock.NewElection(newSession(t, client), "again")
	for range 2 {
		require.NoError(t, e.Campaign(soon(t), "x"))
		held := e.Context()
		_, err := client.Delete(soon(t), e.Key())
		require.NoError(t, err)
		require.ErrorIs(t, e.Verify(soon(t)), etcdlock.ErrLost)
		require.ErrorIs(t, context.Cause(held), etcdlock.ErrLost)
		require.ErrorIs(t, e.Proclaim(soon(t), "y"), etcdlock.ErrLost)
		require.Empty(t, keysUnder(t, client, "again/"), "a late Proclaim writes nothing")
	}
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrLost)
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrNotLeader)
}

func TestObserveYieldsEveryStateInOrder(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	a, b := etcdlock.NewElection(s, "watch"), etcdlock.NewElection(newSession(t, client), "watch")
	ctx, cancel := context.WithCancel(soon(t))
	states := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		for l, err := range b.Observe(ctx) {
			if err != nil {
				ended <- err
				return
			}
			states <- l.Value
		}
	}()
	next := func() string {
		select {
		case v := <-states:
			return v
		case <-soon(t).Done():
			return "nothing came"
		}
	}
	require.Empty(t, next(), "vacant")
	require.NoError(t, a.Campaign(ctx, "a"))
	require.Equal(t, "a", next())
	require.NoError(t, a.Proclaim(ctx, "a2"))
	require.NoError(t, a.Proclaim(ctx, "a3"))
	require.Equal(t, "a2", next())
	require.Equal(t, "a3", next())
	require.NoError(t, a.Resign(ctx))
	require.Empty(t, next(), "vacant again")
	require.NoError(t, b.Campaign(ctx, "b"))
	require.Equal(t, "b", next())
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	for _, err := range etcdlock.NewElection(s, "").Observe(t.Context()) {
		require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	}
	go func() {
		for _, err := range a.Observe(t.Context()) {
			if err != nil {
				ended <- err
			} else {
				go func() { _ = s.Close() }()
			}
		}
	}()
	require.ErrorIs(t, <-ended, etcdlock.ErrClosed)
}

func TestASlowObserverSkipsToTheNewest(t *testing.T) {
	client := newClient(t)
	e := etcdlock.NewElection(newSession(t, client), "slow")
	require.NoError(t, e.Campaign(soon(t), "0"))
	seen := -1
	for l, err := range e.Observe(soon(t)) {
		require.NoError(t, err)
		var n int
		_, err := fmt.Sscan(l.Value, &n)
		require.NoError(t, err)
		require.Greater(t, n, seen, "never backwards")
		seen = n
		if n == 0 { // the reader is away while 200 states pass
			for i := 1; i <= 200; i++ {
				require.NoError(t, e.Proclaim(soon(t), fmt.Sprint(i)))
			}
		}
		if n == 200 {
			return
		}
	}
}

func TestObserveSurvivesCompactionAndReconnection(t *testing.T) {
	clus := newCluster(t, 1)
	client := clus.Client(0)
	e := etcdlock.NewElection(newSession(t, client), "compact")
	require.NoError(t, e.Campaign(soon(t), "0"))
	seen := make(chan string, 100)
	go func() {
		for l, err := range e.Observe(t.Context()) {
			if err == nil {
				seen <- l.Value
			}
		}
	}()
	require.Equal(t, "0", <-seen)
	clus.Members[0].Bridge().PauseConnections()
	clus.Members[0].Bridge().DropConnections()
	behind := clus.Members[0].ServerClient // does not pass the bridge
	put, err := behind.Put(soon(t), e.Key(), "1", clientv3.WithIgnoreLease())
	require.NoError(t, err)
	_, err = behind.Put(soon(t), e.Key(), "2", clientv3.WithIgnoreLease())
	require.NoError(t, err)
	_, err = behind.Compact(soon(t), put.Header.Revision+1)
	require.NoError(t, err)
	clus.Members[0].Bridge().UnpauseConnections()
	for v := range seen {
		if v == "2" {
			return
		}
	}
}

func TestRunLeadsAgainAfterALossAndResignsAtTheEnd(t *testing.T) {
	client := newClient(t)
	e := etcdlock.NewElection(newSession(t, client), "run")
	done := errors.New("done")
	terms := 0
	err := e.Run(soon(t), "x", func(ctx context.Context) error {
		terms++
		if terms == 3 {
			assert.Len(t, keysUnder(t, client, "run/"), 1)
			return done
		}
		_, err := client.Delete(soon(t), e.Key())
		assert.NoError(t, err)
		_ = e.Verify(soon(t))
		<-ctx.Done()
		assert.ErrorIs(t, context.Cause(ctx), etcdlock.ErrLost)
		return ctx.Err()
	})
	require.ErrorIs(t, err, done)
	require.Equal(t, 3, terms)
	require.Empty(t, keysUnder(t, client, "run/"))
}

func TestRunStopsTheWorkBeforeItResigns(t *testing.T) {
	client := newClient(t)
	e := etcdlock.NewElection(newSession(t, client), "stop")
	ctx, cancel := context.WithCancel(t.Context())
	err := e.Run(ctx, "x", func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		assert.Len(t, keysUnder(t, client, "stop/"), 1, "still the leader while the work ends")
		return nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, keysUnder(t, client, "stop/"))
}

func TestCloseWaitsForRunningWork(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	e := etcdlock.NewElection(s, "close")
	began, ran := make(chan struct{}), make(chan error, 1)
	var mu sync.Mutex
	ended := false
	go func() {
		ran <- e.Run(t.Context(), "x", func(ctx context.Context) error {
			close(began)
			<-ctx.Done()
			assert.ErrorIs(t, context.Cause(ctx), etcdlock.ErrClosed)
			assert.Len(t, keysUnder(t, client, "close/"), 1, "nothing is given back before the work has ended")
			mu.Lock()
			ended = true
			mu.Unlock()
			return nil
		})
	}()
	<-began
	start := time.Now()
	require.NoError(t, s.Close())
	mu.Lock()
	assert.True(t, ended)
	mu.Unlock()
	assert.Less(t, time.Since(start), 5*time.Second)
	require.ErrorIs(t, <-ran, etcdlock.ErrClosed)
	require.Empty(t, keysUnder(t, client, "close/"))
	require.NoError(t, s.Close(), "twice is fine")
	require.ErrorIs(t, e.Campaign(soon(t), "x"), etcdlock.ErrClosed)
}

func TestAProclaimThatArrivesLateUndoesNothing(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	e := etcdlock.NewElection(newSession(t, client), "late/proclaim")
	require.NoError(t, e.Campaign(soon(t), "first"))
	leads := func(value string) {
		t.Helper()
		l, err := e.Leader(soon(t))
		require.NoError(t, err)
		require.Equal(t, value, l.Value)
	}
	// stranded makes a call whose first Txn is still under way when the call has ended, and returns what delivers it.
	stranded := func(call func() error) (deliver func() error, err error) {
		tp.onUnary(func(method string, send func() error) error {
			if method == "Txn" && deliver == nil {
				deliver = send
				return status.Error(codes.Unavailable, "under way")
			}
			return send()
		})
		defer tp.onUnary(nil)
		return deliver, call()
	}
	deliver, err := stranded(func() error { return e.Proclaim(soon(t), "a") })
	require.NoError(t, err)
	require.NoError(t, e.Proclaim(soon(t), "b"))
	require.NoError(t, deliver())
	leads("b")

	ctx, cancel := context.WithCancel(t.Context())
	tp.onUnary(func(method string, send func() error) error {
		deliver = send
		cancel()
		return status.Error(codes.Canceled, "under way")
	})
	require.ErrorIs(t, e.Proclaim(ctx, "c"), context.Canceled)
	tp.onUnary(nil)
	require.NoError(t, e.Proclaim(soon(t), "d"))
	require.NoError(t, deliver())
	leads("d")

	deliver, err = stranded(func() error { return e.Proclaim(soon(t), "e") })
	require.NoError(t, err)
	_, err = client.Put(soon(t), e.Key(), "somebody's", clientv3.WithIgnoreLease())
	require.NoError(t, err)
	require.NoError(t, e.Proclaim(soon(t), "f"), "whoever wrote in between")
	require.NoError(t, deliver())
	leads("f")
	require.NoError(t, e.Resign(soon(t)))
}

func TestProclaimsFollowOneAnother(t *testing.T) {
	client := newClient(t)
	e := etcdlock.NewElection(newSession(t, client), "proclaims")
	require.NoError(t, e.Campaign(soon(t), "first"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { assert.NoError(t, e.Proclaim(soon(t), "x")) })
	}
	wg.Wait()
	require.NoError(t, e.Proclaim(soon(t), "last"))
	l, err := e.Leader(soon(t))
	require.NoError(t, err)
	require.Equal(t, "last", l.Value)
}
