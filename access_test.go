package etcdlock_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/etcdlock/etcdlock"
)

// elapse lets d go by: here time itself is what is tested.
func elapse(t *testing.T, d time.Duration) {
	t.Helper()
	<-within(t, d).Done()
}

// tour goes through everything that a client with the permissions for a name can do.
func tour(t *testing.T, client *clientv3.Client, name string) {
	t.Helper()
	s, other := newSession(t, client), newSession(t, client)
	m, n := etcdlock.NewMutex(s, name+"/lock"), etcdlock.NewMutex(other, name+"/lock")
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, m.Verify(soon(t)))
	require.ErrorIs(t, n.TryLock(soon(t)), etcdlock.ErrLocked)
	require.ErrorIs(t, n.TryLock(soon(t)), etcdlock.ErrLocked, "by the holder that the first one saw")
	holder, err := n.Holder(soon(t))
	require.NoError(t, err)
	assert.Equal(t, m.Token(), holder.Token)
	assert.Equal(t, s.Lease(), holder.Lease)
	txn, err := client.Txn(soon(t)).If(m.IsOwner()).Then(clientv3.OpPut(name+"/guarded", "x")).Commit()
	require.NoError(t, err)
	require.True(t, txn.Succeeded)
	takeOver(t, n, m)
	require.NoError(t, n.Unlock(soon(t)))
	require.NoError(t, n.TryLock(soon(t)))
	require.NoError(t, n.Unlock(soon(t)))

	e := etcdlock.NewElection(s, name+"/election")
	require.NoError(t, e.Campaign(soon(t), "one"))
	require.NoError(t, e.Proclaim(soon(t), "two"))
	for leader, err := range etcdlock.NewElection(other, name+"/election").Observe(soon(t)) {
		require.NoError(t, err)
		assert.Equal(t, etcdlock.Leader{Value: "two", Token: e.Token(), Key: e.Key()}, who(leader))
		break
	}
	require.NoError(t, e.Resign(soon(t)))
	_, err = e.Leader(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrNoLeader)
	require.NoError(t, s.Close())
	require.NoError(t, other.Close())
	assert.Empty(t, keysUnder(t, client, name+"/lock/"))
	assert.Empty(t, keysUnder(t, client, name+"/election/"))
}

func TestARoleForThePrefixIsEnough(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	logged := newComplaints()
	quick := []etcdlock.Option{etcdlock.WithTTL(2 * time.Second), etcdlock.WithLogger(slog.New(logged))}
	// One that never locked, one that did, and one that holds: all are renewed.
	unused, idle, busy := newSession(t, g.worker, quick...), newSession(t, g.worker, quick...), newSession(t, g.worker, quick...)
	m := etcdlock.NewMutex(idle, "locks/idle")
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
	h := etcdlock.NewMutex(busy, "locks/busy")
	require.NoError(t, h.Lock(soon(t)))
	before := []clientv3.LeaseID{unused.Lease(), idle.Lease(), busy.Lease()}

	tour(t, g.worker, "locks/tour")
	elapse(t, 3*busy.TTL())
	require.NoError(t, h.Context().Err())
	require.NoError(t, h.Verify(soon(t)))
	assert.Equal(t, before, []clientv3.LeaseID{unused.Lease(), idle.Lease(), busy.Lease()}, "no lease was lost")
	assert.Empty(t, logged.list(), "nothing to complain of")
	late := etcdlock.NewMutex(unused, "locks/late")
	require.NoError(t, late.Lock(soon(t)))
	require.NoError(t, late.Unlock(soon(t)))
	require.NoError(t, h.Unlock(soon(t)))
}

func TestWhoMayNotIsToldAtOnce(t *testing.T) {
	g := newGuarded(t, nil)
	for name, client := range map[string]*clientv3.Client{
		"forbidden/name": g.worker,          // may do something, but not this
		"locks/name":     g.login("nobody"), // may do nothing
	} {
		s := newSession(t, client)
		m, e := etcdlock.NewMutex(s, name), etcdlock.NewElection(s, name)
		for what, call := range map[string]func(context.Context) error{
			"Lock":     m.Lock,
			"TryLock":  m.TryLock,
			"Do":       func(ctx context.Context) error { return m.Do(ctx, func(context.Context) error { return nil }) },
			"Campaign": func(ctx context.Context) error { return e.Campaign(ctx, "x") },
			"Run":      func(ctx context.Context) error { return e.Run(ctx, "x", func(context.Context) error { return nil }) },
			"Holder":   func(ctx context.Context) error { _, err := m.Holder(ctx); return err },
			"Waiters":  func(ctx context.Context) error { _, err := m.Waiters(ctx); return err },
			"Leader":   func(ctx context.Context) error { _, err := e.Leader(ctx); return err },
			"Observe": func(ctx context.Context) error {
				for _, err := range e.Observe(ctx) {
					if err != nil {
						return err
					}
				}
				return errors.New("ended silently")
			},
		} {
			start := time.Now()
			err := call(soon(t))
			require.Error(t, err, what)
			assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, what)
			assert.ErrorContains(t, err, name, what)
			assert.Less(t, time.Since(start), promptly, what)
		}
		require.NoError(t, s.Close())
	}
}

func TestAReaderMayObserveAndNoMore(t *testing.T) {
	g := newGuarded(t, nil)
	g.addUser(t, g.root, "reader", "look")
	// The range of one name exactly: its tickets, and nothing beside them.
	_, err := g.root.RoleGrantPermission(soon(t), "look", "locks/e/", clientv3.GetPrefixRangeEnd("locks/e/"),
		clientv3.PermissionType(clientv3.PermRead))
	require.NoError(t, err)
	leads := etcdlock.NewElection(newSession(t, g.worker), "locks/e")
	require.NoError(t, leads.Campaign(soon(t), "x"))

	s := newSession(t, g.login("reader"))
	looks := etcdlock.NewElection(s, "locks/e")
	leader, err := looks.Leader(soon(t))
	require.NoError(t, err)
	assert.Equal(t, "x", leader.Value)
	for leader, err := range looks.Observe(soon(t)) {
		require.NoError(t, err)
		assert.Equal(t, leads.Token(), leader.Token)
		break
	}
	holder, err := etcdlock.NewMutex(s, "locks/e").Holder(soon(t))
	require.NoError(t, err)
	assert.Equal(t, leads.Key(), holder.Key)
	require.ErrorIs(t, looks.Campaign(soon(t), "y"), rpctypes.ErrPermissionDenied)
	require.ErrorIs(t, etcdlock.NewMutex(s, "locks/e").TryLock(soon(t)), rpctypes.ErrPermissionDenied)
	assert.Equal(t, []string{leads.Key()}, keysUnder(t, g.root, "locks/"))
}

func TestAForeignKeyOnOurLeaseThatWeMayNotWriteIsTold(t *testing.T) {
	g := newGuarded(t, nil)
	logged := newComplaints()
	s := newSession(t, g.worker, etcdlock.WithTTL(3*time.Second), etcdlock.WithLogger(slog.New(logged)))
	m := etcdlock.NewMutex(s, "locks/hung")
	require.NoError(t, m.Lock(soon(t)))
	_, err := g.root.Put(soon(t), "elsewhere", "x", clientv3.WithLease(s.Lease()))
	require.NoError(t, err)
	if _, err := g.worker.KeepAliveOnce(soon(t), s.Lease()); err != nil {
		// A newer etcd refuses the renewal. The Session says so instead of losing the hold in silence.
		require.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
		eventually(t, func() bool { return logged.has("etcdlock: renewal failed") }, "it is told")
	} else {
		require.NoError(t, m.Unlock(soon(t)), "an older one renews the lease all the same")
	}
	// etcd refuses to revoke the lease too, so the tickets are deleted one by one.
	require.NoError(t, s.Close())
	assert.Empty(t, keysUnder(t, g.root, "locks/"))
}

func TestAnAuthTokenThatExpiresCostsNothing(t *testing.T) {
	t.Parallel()
	// etcd forgets a token that was not used for a second: each renewal, every two, finds it gone.
	g := newGuarded(t, func(cfg *embed.Config) { cfg.AuthTokenTTL = 1 })
	logged := newComplaints()
	s := newSession(t, g.worker, etcdlock.WithTTL(6*time.Second), etcdlock.WithLogger(slog.New(logged)))
	client := g.login("worker")
	m, e := etcdlock.NewMutex(s, "locks/token"), etcdlock.NewElection(s, "locks/led")
	n := etcdlock.NewMutex(newSession(t, client), "locks/token")
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, e.Campaign(soon(t), "x"))
	got := make(chan error, 1)
	go func() { got <- n.Lock(soon(t)) }()
	waiters(t, m, 1)
	elapse(t, 5*time.Second)
	require.NoError(t, m.Context().Err())
	require.NoError(t, m.Verify(soon(t)))
	require.NoError(t, e.Proclaim(soon(t), "y"))
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, <-got)
	require.NoError(t, n.Unlock(soon(t)))
	assert.Empty(t, logged.list(), "nothing was lost")
}

func TestObserveWithoutALoginEndsWithTheRefusal(t *testing.T) {
	endpoint := newServer(t, nil)
	g := &guarded{}
	open := dial(t, endpoint, clientv3.Config{})
	s := newSession(t, open)
	g.addUser(t, open, "root", "root")
	_, err := open.AuthEnable(soon(t))
	require.NoError(t, err)
	for _, err = range etcdlock.NewElection(s, "locks/e").Observe(soon(t)) {
	}
	require.ErrorIs(t, err, rpctypes.ErrUserEmpty)
}

func TestAnEtcdSetToFewOperationsInOneTxn(t *testing.T) {
	client := dial(t, newServer(t, func(cfg *embed.Config) { cfg.MaxTxnOps = 4 }), clientv3.Config{})
	s := newSession(t, client, etcdlock.WithTTL(2*time.Second))
	m := etcdlock.NewMutex(s, "few")
	require.NoError(t, m.Lock(soon(t)))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() { assert.ErrorIs(t, etcdlock.NewMutex(s, "few").Lock(ctx), context.Canceled) })
	}
	waiters(t, m, 60)
	first := s.Lease()
	elapse(t, s.TTL()) // the tickets are checked, and the lease is renewed
	require.NoError(t, m.Verify(soon(t)))
	require.Equal(t, first, s.Lease())
	cancel()
	wg.Wait()
	waiters(t, m, 0)
	require.NoError(t, m.Unlock(soon(t)))
}

func TestTLS(t *testing.T) {
	certFile, keyFile, client := newCertificate(t)
	endpoint := newServer(t, func(cfg *embed.Config) {
		secure := []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = secure, secure
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = certFile, keyFile
		cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = certFile, true
	})
	tour(t, dial(t, "https://"+endpoint, clientv3.Config{TLS: client}), "tls")

	stranger := client.Clone()
	stranger.Certificates = []tls.Certificate{}
	c := dial(t, "https://"+endpoint, clientv3.Config{TLS: stranger})
	_, err := etcdlock.NewSession(within(t, time.Second), c)
	require.Error(t, err, "a client without a certificate")
}

// The server takes no new watch on a stream whose login has expired, and the stream stays open between waits.
func TestAWaitAfterTheLoginHasExpiredIsNotRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, func(cfg *embed.Config) { cfg.AuthTokenTTL = 1 })
	holder := etcdlock.NewMutex(newSession(t, g.root), "locks/login")
	waits := func(s *etcdlock.Session) {
		t.Helper()
		m := etcdlock.NewMutex(s, holder.Name())
		require.NoError(t, holder.Lock(soon(t)))
		takeOver(t, m, holder)
		require.NoError(t, m.Unlock(soon(t)))
	}
	a, b := newSession(t, g.worker), newSession(t, g.login("worker"))
	waits(a)
	waits(b)
	elapse(t, 4*time.Second)
	waits(a)
	require.NoError(t, etcdlock.NewElection(a, "locks/lead").Campaign(soon(t), "one"))
	for leader, err := range etcdlock.NewElection(b, "locks/lead").Observe(soon(t)) {
		require.NoError(t, err)
		require.Equal(t, "one", leader.Value)
		break
	}
}

func TestTheGuardOfAHoldThatHasEndedNeedsNoOtherPermission(t *testing.T) {
	g := newGuarded(t, nil)
	s := newSession(t, g.worker)
	h, err := etcdlock.NewRWMutex(s, "locks/guard").RLock(soon(t))
	require.NoError(t, err)
	require.NoError(t, h.Release(soon(t)))
	resp, err := g.worker.Txn(soon(t)).If(h.IsOwner()...).Then(clientv3.OpPut("locks/data", "1")).Commit()
	require.NoError(t, err)
	require.False(t, resp.Succeeded)
}
