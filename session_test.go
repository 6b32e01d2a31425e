package etcdlock_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

func TestNewSessionRefusesBadInput(t *testing.T) {
	client := newClient(t)
	_, err := etcdlock.NewSession(soon(t), nil)
	require.ErrorContains(t, err, "nil")
	for want, opt := range map[string]etcdlock.Option{
		"30ns":     etcdlock.WithTTL(30),
		"0s":       etcdlock.WithTTL(0),
		"-1s":      etcdlock.WithTTL(-time.Second),
		"identity": etcdlock.WithIdentity(""),
		"logger":   etcdlock.WithLogger(nil),
		"negative": etcdlock.WithLinger(-1),
		"nil":      nil,
	} {
		_, err := etcdlock.NewSession(soon(t), client, opt)
		require.ErrorContains(t, err, want)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = etcdlock.NewSession(over, client)
	require.ErrorIs(t, err, context.Canceled)
	resp, err := client.Leases(soon(t))
	require.NoError(t, err)
	require.Empty(t, resp.Leases, "nothing left behind")
}

func TestTheTTLIsInWholeSecondsAndTheGrantedOneCounts(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithTTL(7001*time.Millisecond))
	require.Equal(t, 8*time.Second, s.TTL())
	resp, err := client.TimeToLive(soon(t), s.Lease())
	require.NoError(t, err)
	require.Equal(t, int64(8), resp.GrantedTTL)
}

func TestAContextThatIsOverSendsNothing(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	tp.requests()
	m, e := etcdlock.NewMutex(s, "over"), etcdlock.NewElection(s, "over")
	require.ErrorIs(t, m.Lock(over), context.Canceled)
	require.ErrorIs(t, m.TryLock(over), context.Canceled)
	require.ErrorIs(t, e.Campaign(over, "x"), context.Canceled)
	require.Empty(t, tp.requests())
}

func TestEmptyNamesAreRefused(t *testing.T) {
	s := newSession(t, newClient(t))
	m, e := etcdlock.NewMutex(s, ""), etcdlock.NewElection(s, "")
	require.ErrorIs(t, m.Lock(soon(t)), etcdlock.ErrInvalidName)
	require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrInvalidName)
	require.ErrorIs(t, m.Do(soon(t), nil), etcdlock.ErrInvalidName)
	require.ErrorIs(t, e.Campaign(soon(t), "x"), etcdlock.ErrInvalidName)
	_, err := m.Holder(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	_, err = e.Leader(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
	require.PanicsWithError(t, etcdlock.ErrInvalidName.Error(), func() { m.Locker().Lock() })
}

func TestAClosedSession(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m, other := etcdlock.NewMutex(s, "closed"), etcdlock.NewMutex(s, "closed")
	e := etcdlock.NewElection(s, "closed/e")
	require.NoError(t, m.Lock(soon(t)))
	held := m.Context()
	waits := make(chan error, 1)
	go func() { waits <- other.Lock(context.Background()) }()
	waiters(t, m, 1)
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-waits, etcdlock.ErrClosed)
	require.ErrorIs(t, context.Cause(held), etcdlock.ErrClosed)
	require.Empty(t, keysUnder(t, client, "closed/"))
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrClosed)
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrClosed)
	require.ErrorIs(t, m.Lock(soon(t)), etcdlock.ErrClosed)
	require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrClosed)
	require.ErrorIs(t, m.Verify(soon(t)), etcdlock.ErrClosed)
	require.ErrorIs(t, e.Campaign(soon(t), "x"), etcdlock.ErrClosed)
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrClosed)
	_, err := m.Holder(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrClosed)
	require.Panics(t, func() { m.Locker().Lock() })
	require.NoError(t, s.Close())
	resp, err := client.Leases(soon(t))
	require.NoError(t, err)
	require.Empty(t, resp.Leases)
}

func TestShutdownWaitsForWhoHolds(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m, e := etcdlock.NewMutex(s, "down"), etcdlock.NewElection(s, "down/e")
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, e.Campaign(soon(t), "v"))
	waits := make(chan error, 1)
	go func() { waits <- etcdlock.NewMutex(s, "down").Lock(context.Background()) }()
	waiters(t, m, 1)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(soon(t)) }()
	require.ErrorIs(t, <-waits, etcdlock.ErrClosed)
	require.NoError(t, e.Proclaim(soon(t), "w"))
	require.NoError(t, errors.Join(e.Verify(soon(t)), m.Verify(soon(t))))
	require.NoError(t, e.Resign(soon(t)))
	eventually(t, func() bool { return len(keysUnder(t, client, "down/")) == 1 }, "who waited has left")
	require.Equal(t, []string{m.Key()}, keysUnder(t, client, "down/"))
	require.Empty(t, down)
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, <-down)
	resp, err := client.Leases(soon(t))
	require.NoError(t, err)
	require.Empty(t, resp.Leases)
}

func TestAClientClosedUnderOurFeet(t *testing.T) {
	clus := newCluster(t, 1)
	client, _ := newTappedClient(t, clus)
	s, err := etcdlock.NewSession(soon(t), client, etcdlock.WithTTL(2*time.Second))
	require.NoError(t, err)
	m, waits := etcdlock.NewMutex(s, "feet"), etcdlock.NewMutex(s, "feet")
	require.NoError(t, m.Lock(soon(t)))
	queued := make(chan error, 1)
	go func() { queued <- waits.Lock(soon(t)) }()
	waiters(t, etcdlock.NewMutex(newSession(t, clus.Client(0)), "feet"), 1)
	require.NoError(t, client.Close())
	start := time.Now()
	require.ErrorIs(t, <-queued, etcdlock.ErrClientClosed)
	require.ErrorIs(t, etcdlock.NewMutex(s, "other").Lock(soon(t)), etcdlock.ErrClientClosed)
	require.ErrorIs(t, etcdlock.NewMutex(s, "other").TryLock(soon(t)), etcdlock.ErrClientClosed)
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrClientClosed)
	require.ErrorIs(t, s.Close(), etcdlock.ErrClientClosed)
	assert.Less(t, time.Since(start), promptly)
	eventually(t, func() bool { return len(keysUnder(t, clus.Client(0), "feet/")) == 0 }, "the lease ends by itself")
}

func TestWhatTheServerRefusesIsToldAtOnce(t *testing.T) {
	clus := newCluster(t, 1)
	client := clus.Client(0)
	s := newSession(t, client)
	large := newSession(t, client, etcdlock.WithIdentity(strings.Repeat("x", 2<<20)))
	err := etcdlock.NewMutex(large, "large").Lock(soon(t))
	require.ErrorContains(t, err, `"large"`)
	require.ErrorContains(t, err, "large")
	require.Empty(t, keysUnder(t, client, "large/"))

	m := etcdlock.NewMutex(s, "full")
	require.NoError(t, m.Lock(soon(t)))
	alarm := &etcdserverpb.AlarmRequest{
		MemberID: uint64(clus.Members[0].ID()), Action: etcdserverpb.AlarmRequest_ACTIVATE, Alarm: etcdserverpb.AlarmType_NOSPACE,
	}
	_, err = etcdserverpb.NewMaintenanceClient(client.ActiveConnection()).Alarm(soon(t), alarm)
	require.NoError(t, err)
	err = etcdlock.NewMutex(s, "full too").Lock(soon(t))
	require.ErrorIs(t, err, rpctypes.ErrNoSpace)
	require.ErrorContains(t, err, `"full too"`)
	require.ErrorIs(t, etcdlock.NewElection(s, "full too").Campaign(soon(t), "x"), rpctypes.ErrNoSpace)
	require.NoError(t, m.Unlock(soon(t)), "deletions are not refused")
	_, err = client.AlarmDisarm(soon(t), (*clientv3.AlarmMember)(&etcdserverpb.AlarmMember{}))
	require.NoError(t, err)
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
}

func TestAForeignKeyWithoutALeaseIsAContender(t *testing.T) {
	client := newClient(t)
	m := etcdlock.NewMutex(newSession(t, client), "foreign")
	put, err := client.Put(soon(t), "foreign/somebody", "by hand")
	require.NoError(t, err)
	by := &etcdlock.LockedError{}
	require.ErrorAs(t, m.TryLock(soon(t)), &by)
	want := etcdlock.LockedError{Name: "foreign", Holder: "by hand", Token: put.Header.Revision, Key: "foreign/somebody"}
	require.Equal(t, want, *by)
	require.ErrorAs(t, m.Lock(within(t, 300*time.Millisecond)), &by)
	require.Equal(t, want, *by)
	h, err := m.Holder(soon(t))
	require.NoError(t, err)
	require.Equal(t, etcdlock.Contender{Identity: "by hand", Token: put.Header.Revision, Key: "foreign/somebody", Modified: put.Header.Revision}, h)
	got := make(chan error, 1)
	go func() { got <- m.Lock(soon(t)) }()
	waiters(t, m, 1)
	_, err = client.Delete(soon(t), "foreign/somebody")
	require.NoError(t, err)
	require.NoError(t, <-got)
}

func TestLockerPanicsForMisuseAndLogsLosses(t *testing.T) {
	client := newClient(t)
	var log bytes.Buffer
	s := newSession(t, client, etcdlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	l := etcdlock.NewMutex(s, "locker").Locker()
	require.Panics(t, l.Unlock)
	l.Lock()
	require.Len(t, keysUnder(t, client, "locker/"), 1)
	l.Unlock()
	require.Panics(t, l.Unlock)
	m := etcdlock.NewMutex(s, "locker")
	m.Locker().Lock()
	_, err := client.Delete(soon(t), m.Key())
	require.NoError(t, err)
	require.ErrorIs(t, m.Verify(soon(t)), etcdlock.ErrLost)
	m.Locker().Unlock()
	require.NoError(t, s.Close())
	require.Contains(t, log.String(), "hold lost")
}
