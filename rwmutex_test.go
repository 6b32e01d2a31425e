package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

func TestReadersHoldTogetherAndAWriterAlone(t *testing.T) {
	client := newClient(t)
	a, b := newSession(t, client), newSession(t, client)
	name := t.Name()
	one, two := etcdlock.NewRWMutex(a, name), etcdlock.NewRWMutex(b, name)
	r1, err := one.RLock(t.Context())
	require.NoError(t, err)
	r2, err := two.TryRLock(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, two.TryLock(t.Context()), etcdlock.ErrLocked)
	require.NoError(t, r1.Release(t.Context()))
	require.ErrorIs(t, r1.Release(t.Context()), etcdlock.ErrNotHeld)
	require.ErrorIs(t, one.TryLock(t.Context()), etcdlock.ErrLocked, "of the second of two readers")
	require.NoError(t, r2.Release(t.Context()))
	require.NoError(t, one.Lock(t.Context()))
	_, err = two.TryRLock(t.Context())
	require.ErrorIs(t, err, etcdlock.ErrLocked)
	require.NoError(t, one.Unlock(t.Context()))
}

func TestHoldersAreThoseThatHoldTogether(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithIdentity("me"))
	m := etcdlock.NewRWMutex(s, "name")
	holders, err := m.Holders(soon(t))
	require.NoError(t, err)
	require.Empty(t, holders)
	_, err = m.Holder(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrNotHeld)

	r1, err := m.RLock(soon(t))
	require.NoError(t, err)
	r2, err := m.RLock(soon(t))
	require.NoError(t, err)
	for _, leaf := range []string{"of-10-w2-1-1", "read-zz", "zz"} {
		_, err := client.Put(soon(t), "name/"+leaf, "by hand")
		require.NoError(t, err)
	}

	reader := func(h *etcdlock.Hold) etcdlock.Contender {
		return etcdlock.Contender{Identity: "me", Token: h.Token(), Lease: s.Lease(), Key: h.Key(), Class: "read", Modified: h.Token()}
	}
	holders, err = m.Holders(soon(t))
	require.NoError(t, err)
	require.Equal(t, []etcdlock.Contender{reader(r1), reader(r2)}, holders)
	holder, err := m.Holder(soon(t))
	require.NoError(t, err)
	require.Equal(t, reader(r1), holder)
	waiters, err := m.Waiters(soon(t))
	require.NoError(t, err)
	var classes []string
	for _, w := range waiters {
		classes = append(classes, w.Class)
	}
	require.Equal(t, []string{"2 of 10", "read", ""}, classes)

	for what, call := range map[string]func() error{
		"TryLock": func() error { return m.TryLock(soon(t)) },
		"Lock":    func() error { return m.Lock(within(t, 300*time.Millisecond)) },
	} {
		err := call()
		var by *etcdlock.LockedError
		require.ErrorAs(t, err, &by, what)
		assert.Equal(t, "read", by.Class, what)
		require.ErrorContains(t, err, "(read, ticket ", what)
	}
}

func TestAReadHoldAnswersAsAMutexDoes(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m := etcdlock.NewRWMutex(s, "answers")
	h, err := m.RLock(soon(t))
	require.NoError(t, err)
	beside, err := m.RLock(soon(t))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("answers/read-%x-1", s.Lease()), h.Key())
	assert.Greater(t, beside.Token(), h.Token())
	require.NoError(t, h.Verify(soon(t)))
	require.NoError(t, h.Context().Err())
	write := func(guard []clientv3.Cmp) bool {
		resp, err := client.Txn(soon(t)).If(guard...).Then(clientv3.OpPut("written", "x")).Commit()
		require.NoError(t, err)
		return resp.Succeeded
	}
	guard := h.IsOwner()
	assert.True(t, write(guard))
	require.NoError(t, h.Release(soon(t)))
	assert.False(t, write(guard))
	assert.False(t, write(h.IsOwner()), "of a hold that was released")
	assert.True(t, write(beside.IsOwner()))
	require.ErrorIs(t, context.Cause(h.Context()), etcdlock.ErrNotHeld)
	require.ErrorIs(t, h.Verify(soon(t)), etcdlock.ErrNotHeld)
	require.ErrorIs(t, h.Release(soon(t)), etcdlock.ErrNotHeld)
	require.NotZero(t, h.Token(), "what it was is remembered")
	require.NoError(t, beside.Verify(soon(t)), "a second release ends no other's hold")

	_, err = client.Delete(soon(t), beside.Key())
	require.NoError(t, err)
	require.ErrorIs(t, beside.Release(soon(t)), etcdlock.ErrLost, "a removal that nobody noticed shows at the release")
	require.ErrorIs(t, beside.Release(soon(t)), etcdlock.ErrNotHeld)

	last, err := m.RLock(soon(t))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.ErrorIs(t, context.Cause(last.Context()), etcdlock.ErrClosed)
	require.ErrorIs(t, last.Release(soon(t)), etcdlock.ErrClosed)
	_, err = m.RLock(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrClosed)
	_, err = m.TryRLock(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrClosed)
	_, err = m.Holders(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrClosed)
	_, err = etcdlock.NewRWMutex(s, "").RLock(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrInvalidName)
}

func TestTheTryingFormsRunTheirFunctionOrSayWhoIsInTheWay(t *testing.T) {
	client := newClient(t)
	m, other := etcdlock.NewRWMutex(newSession(t, client), "try"), etcdlock.NewRWMutex(newSession(t, client), "try")
	errWork := errors.New("work")
	work := func(ctx context.Context) error { require.NoError(t, ctx.Err()); return errWork }
	never := func(context.Context) error { return errors.New("it is held by another") }
	for _, do := range []func(context.Context, func(context.Context) error) error{m.Do, m.TryDo, m.RDo, m.TryRDo} {
		require.ErrorIs(t, do(soon(t), work), errWork)
		require.Empty(t, keysUnder(t, client, "try/"))
	}
	require.NoError(t, other.RDo(soon(t), func(context.Context) error {
		require.ErrorIs(t, m.TryRDo(soon(t), work), errWork)
		require.ErrorIs(t, m.TryDo(soon(t), never), etcdlock.ErrLocked)
		return nil
	}))
	require.NoError(t, other.TryDo(soon(t), func(context.Context) error {
		require.ErrorIs(t, m.TryRDo(soon(t), never), etcdlock.ErrLocked)
		require.ErrorIs(t, m.TryDo(soon(t), never), etcdlock.ErrLocked)
		require.ErrorIs(t, m.RDo(within(t, 300*time.Millisecond), never), etcdlock.ErrLocked)
		return nil
	}))
	for name, do := range map[string]func(context.Context, func(context.Context) error) error{"TryDo": m.TryDo, "RDo": m.RDo} {
		err := do(soon(t), func(ctx context.Context) error {
			_, err := client.Delete(soon(t), "try/", clientv3.WithPrefix())
			return err
		})
		require.ErrorIs(t, err, etcdlock.ErrLost, name)
	}
}

func TestAnElectionRefusesANameOfReaders(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	e, m := etcdlock.NewElection(s, "mixed"), etcdlock.NewRWMutex(newSession(t, client), "mixed")
	h, err := m.RLock(soon(t))
	require.NoError(t, err)
	for what, err := range map[string]error{
		"Campaign": e.Campaign(soon(t), "x"), "TryCampaign": e.TryCampaign(soon(t), "x"),
		"Run": e.Run(soon(t), "x", func(context.Context) error { return nil }),
	} {
		require.ErrorContains(t, err, "an election needs a name of its own", what)
		require.ErrorContains(t, err, `"mixed"`, what)
	}
	_, err = e.Leader(soon(t))
	require.ErrorIs(t, err, etcdlock.ErrNoLeader, "a reader leads nothing")
	for l, err := range e.Observe(soon(t)) {
		require.NoError(t, err)
		require.Zero(t, l)
		break
	}
	eventually(t, func() bool { return len(keysUnder(t, client, "mixed/")) == 1 }, "nothing is left behind")
	require.NoError(t, h.Release(soon(t)))
	require.NoError(t, e.Campaign(soon(t), "x"))
}

func TestTryCampaignLeadsOrSaysWhoDoes(t *testing.T) {
	client := newClient(t)
	a, b := etcdlock.NewElection(newSession(t, client), "try"), etcdlock.NewElection(newSession(t, client), "try")
	require.NoError(t, a.TryCampaign(soon(t), "a"))
	require.ErrorIs(t, a.TryCampaign(soon(t), "a"), etcdlock.ErrCampaigning)
	for range 2 {
		var by *etcdlock.LockedError
		require.ErrorAs(t, b.TryCampaign(soon(t), "b"), &by)
		require.Equal(t, etcdlock.LockedError{Name: "try", Holder: "a", Token: a.Token(), Key: a.Key()}, *by)
	}
	require.ErrorIs(t, b.Resign(soon(t)), etcdlock.ErrNotLeader)
	require.NoError(t, a.Resign(soon(t)))
	require.NoError(t, b.TryCampaign(soon(t), "b"))
	l, err := a.Leader(soon(t))
	require.NoError(t, err)
	require.Equal(t, "b", l.Value)
	require.NoError(t, b.Resign(soon(t)))
}
