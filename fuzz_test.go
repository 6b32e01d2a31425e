package etcdlock_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

// FuzzNamesIdentitiesValues puts any text there is through a lock and an election. Keys and values are bytes to etcd,
// so even text that is no UTF-8 must come back as it went in.
//
//	go test -fuzz FuzzNamesIdentitiesValues -fuzztime 30s .
func FuzzNamesIdentitiesValues(f *testing.F) {
	texts := append([]string{"", "\xff\xfe", "a\xc3", "\xed\xa0\x80", "a/\xff/b"}, awkward...)
	for i, name := range texts {
		f.Add(name, texts[(i+3)%len(texts)], texts[(i+7)%len(texts)])
	}
	client := fuzzClient(f)
	f.Fuzz(func(t *testing.T, name, identity, value string) {
		if len(name)+len(identity)+len(value) > 100_000 {
			return // above what etcd takes in a request; see the tests of bad days
		}
		ctx := soon(t)
		if identity == "" {
			_, err := etcdlock.NewSession(ctx, client, etcdlock.WithIdentity(identity))
			require.Error(t, err)
			identity = "somebody"
		}
		s, other := newSession(t, client, etcdlock.WithIdentity(identity)), newSession(t, client)
		m, e := etcdlock.NewMutex(s, name), etcdlock.NewElection(s, name)
		if name == "" {
			require.ErrorIs(t, m.Lock(ctx), etcdlock.ErrInvalidName)
			require.ErrorIs(t, e.Campaign(ctx, value), etcdlock.ErrInvalidName)
			return
		}
		require.NoError(t, m.Lock(ctx))
		assert.Equal(t, identity, s.Identity())
		leaf, ok := strings.CutPrefix(m.Key(), name+"/")
		require.True(t, ok && !strings.Contains(leaf, "/"), m.Key())
		require.NoError(t, m.Verify(ctx))
		holder, err := m.Holder(ctx)
		require.NoError(t, err)
		require.Equal(t, etcdlock.Contender{Identity: identity, Token: m.Token(), Lease: s.Lease(), Key: m.Key(), Modified: m.Token()}, holder)
		busy := (*etcdlock.LockedError)(nil)
		require.ErrorAs(t, etcdlock.NewMutex(other, name).TryLock(ctx), &busy)
		require.Equal(t, etcdlock.LockedError{Name: name, Holder: identity, Token: m.Token(), Key: m.Key()}, *busy)
		assert.True(t, utf8.ValidString(busy.Error()), "a message can be printed, whatever the name")
		resp, err := client.Txn(ctx).If(m.IsOwner()).Commit()
		require.NoError(t, err)
		require.True(t, resp.Succeeded)
		require.NoError(t, m.Unlock(ctx))

		require.NoError(t, e.Campaign(ctx, value))
		want := value
		if want == "" {
			want = identity
		}
		for _, proclaimed := range []string{want, want + "/again"} {
			if proclaimed != want {
				require.NoError(t, e.Proclaim(ctx, proclaimed))
			}
			l, err := etcdlock.NewElection(other, name).Leader(ctx)
			require.NoError(t, err)
			require.Equal(t, etcdlock.Leader{Value: proclaimed, Token: e.Token(), Key: e.Key()}, who(l))
			for l, err := range etcdlock.NewElection(other, name).Observe(ctx) {
				require.NoError(t, err)
				require.Equal(t, proclaimed, l.Value)
				break
			}
		}
		require.NoError(t, e.Resign(ctx))
		nothingUnder(t, client, name+"/")
	})
}
