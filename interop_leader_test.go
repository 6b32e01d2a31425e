package etcdlock_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"

	"github.com/etcdlock/etcdlock"
)

// eachSeesTheLeader has each kind lead in turn; every other way to ask or to observe shows it, its key and its value.
func eachSeesTheLeader(t *testing.T, f *fleet) {
	t.Helper()
	name := t.Name()
	e := etcdlock.NewElection(newSession(t, f.client), name)
	old := concurrency.NewElection(oldSession(t, f), name)
	service := v3electionpb.NewElectionClient(f.client.ActiveConnection())
	seen := f.observers(t, name)
	for i, kind := range electionKinds() {
		value := fmt.Sprint("campaigned-", i)
		c := kind(t, f, name, value)
		key, err := c.take(soon(t))
		require.NoError(t, err, c.kind)
		check := func(value string) {
			leader, err := e.Leader(soon(t))
			require.NoError(t, err, c.kind)
			got, err := old.Leader(soon(t))
			require.NoError(t, err, c.kind)
			answer, err := service.Leader(soon(t), &v3electionpb.LeaderRequest{Name: []byte(name)})
			require.NoError(t, err, c.kind)
			token := got.Kvs[0].CreateRevision
			assert.Equal(t, etcdlock.Leader{Value: value, Token: token, Key: key}, who(leader), c.kind)
			assert.Equal(t, []string{value, value}, []string{string(got.Kvs[0].Value), string(answer.Kv.Value)}, c.kind)
			assert.Equal(t, []string{key, key}, []string{string(got.Kvs[0].Key), string(answer.Kv.Key)}, c.kind)
			for who, states := range seen {
				for state := ""; state != key+" "+value; {
					select {
					case state = <-states:
					case <-soon(t).Done():
						require.Failf(t, "not seen", "%s does not see %s lead as %s", who, c.kind, value)
					}
				}
			}
		}
		check(value)
		if c.proclaim != nil {
			value = fmt.Sprint("proclaimed-", i)
			require.NoError(t, c.proclaim(soon(t), value), c.kind)
			check(value)
		}
		require.NoError(t, c.give(soon(t)), c.kind)
		_, err = e.Leader(soon(t))
		require.ErrorIs(t, err, etcdlock.ErrNoLeader)
		_, err = old.Leader(soon(t))
		require.ErrorIs(t, err, concurrency.ErrElectionNoLeader)
	}
}

// observers starts all that can observe an election: each tells its states as "key value".
func (f *fleet) observers(t *testing.T, name string) map[string]chan string {
	t.Helper()
	seen := map[string]chan string{}
	observe := func(who string, follow func(ctx context.Context, tell func(key, value string))) {
		states, done := make(chan string, 1000), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		seen[who] = states
		go func() {
			defer close(done)
			follow(ctx, func(key, value string) { states <- key + " " + value })
		}()
		t.Cleanup(func() { cancel(); <-done })
	}
	s := newSession(t, f.client)
	observe("Election.Observe", func(ctx context.Context, tell func(string, string)) {
		for l, err := range etcdlock.NewElection(s, name).Observe(ctx) {
			if err == nil {
				tell(l.Key, l.Value)
			}
		}
	})
	old := oldSession(t, f)
	observe("concurrency.Election.Observe", func(ctx context.Context, tell func(string, string)) {
		for resp := range concurrency.NewElection(old, name).Observe(ctx) {
			tell(string(resp.Kvs[0].Key), string(resp.Kvs[0].Value))
		}
	})
	observe("v3election", func(ctx context.Context, tell func(string, string)) {
		stream, err := v3electionpb.NewElectionClient(f.client.ActiveConnection()).
			Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte(name)})
		for err == nil {
			var resp *v3electionpb.LeaderResponse
			if resp, err = stream.Recv(); err == nil {
				tell(string(resp.Kv.Key), string(resp.Kv.Value))
			}
		}
	})
	cmd, lines := f.start(t, "elect", "-l", name)
	observe("etcdctl elect -l", func(context.Context, func(string, string)) {})
	states := seen["etcdctl elect -l"]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines.Scan() {
			key := lines.Text()
			if lines.Scan() {
				states <- key + " " + lines.Text()
			}
		}
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
	return seen
}

func TestAKeyThatSomebodyPutByHandIsAContender(t *testing.T) {
	client := newClient(t)
	put, err := client.Put(soon(t), "foreign/somebody", "by hand")
	require.NoError(t, err)
	token := put.Header.Revision
	m := etcdlock.NewMutex(newSession(t, client), "foreign")
	holder, err := m.Holder(soon(t))
	require.NoError(t, err)
	assert.Equal(t, etcdlock.Contender{Identity: "by hand", Token: token, Key: "foreign/somebody", Modified: token}, holder)
	for what, call := range map[string]func() error{
		"TryLock": func() error { return m.TryLock(soon(t)) },
		"Lock":    func() error { return m.Lock(within(t, time.Second)) },
		"Campaign": func() error {
			return etcdlock.NewElection(newSession(t, client), "foreign").Campaign(within(t, time.Second), "x")
		},
	} {
		err := call()
		require.ErrorIs(t, err, etcdlock.ErrLocked, what)
		require.ErrorContains(t, err, `"foreign/somebody"`, what)
		var by *etcdlock.LockedError
		require.ErrorAs(t, err, &by, what)
		assert.Equal(t, etcdlock.LockedError{Name: "foreign", Holder: "by hand", Token: token, Key: "foreign/somebody"}, *by, what)
	}
	leader, err := etcdlock.NewElection(newSession(t, client), "foreign").Leader(soon(t))
	require.NoError(t, err)
	assert.Equal(t, etcdlock.Leader{Value: "by hand", Token: token, Key: "foreign/somebody"}, who(leader))

	// A change of its value frees nothing; its deletion does, and one behind us is only a waiter.
	got := make(chan error, 1)
	go func() { got <- m.Lock(soon(t)) }()
	waiters(t, m, 1)
	_, err = client.Put(soon(t), "foreign/somebody", "still")
	require.NoError(t, err)
	_, err = client.Put(soon(t), "foreign/late", "x", clientv3.WithLease(clientv3.NoLease))
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = client.Delete(soon(t), "foreign/somebody")
	require.NoError(t, err)
	require.NoError(t, <-got)
	waiters(t, m, 1)
	require.NoError(t, m.Verify(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
	assert.Equal(t, []string{"foreign/late"}, keysUnder(t, client, "foreign/"))
}
