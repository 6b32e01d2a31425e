package memetcd

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/embedded"
)

// both is a real etcd and the one in memory, asked the same.
type both struct {
	t          *testing.T
	realKV     pb.KVClient
	fakeKV     pb.KVClient
	realLease  pb.LeaseClient
	fakeLease  pb.LeaseClient
	real, fake *clientv3.Client
	random     *rand.Rand
	server     *Server
	asked      int
	refused    map[string]int
}

func newBoth(t *testing.T, seed uint64) *both {
	t.Helper()
	etcd, err := embedded.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = etcd.Close() })
	client, err := embedded.Dial(etcd.Endpoints()...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	s := New(Config{})
	t.Cleanup(s.Close)
	fake := s.Client(t.Context())
	c := &conn{s: s, client: fake.Ctx()}
	conn := client.ActiveConnection()
	return &both{
		t: t, realKV: pb.NewKVClient(conn), fakeKV: kvConn{conn: c}, realLease: pb.NewLeaseClient(conn), fakeLease: c,
		real: client, fake: fake, random: rand.New(rand.NewPCG(seed, 0)), server: s, refused: map[string]int{},
	}
}

// same asks both and compares the answers.
func same[Q, R fmt.Stringer](b *both, q Q, real, fake func(Q) (R, error)) {
	b.t.Helper()
	want, wantErr := real(q)
	got, gotErr := fake(q)
	what := fmt.Sprintf("request %d: %T %v", b.asked, q, q)
	b.asked++
	if wantErr != nil || gotErr != nil {
		// Which of several reasons is told differs from version to version of etcd.
		require.True(b.t, wantErr != nil && gotErr != nil, "%s: %v, %v", what, wantErr, gotErr)
		b.refused[status.Convert(wantErr).Message()]++
		return
	}
	level(want)
	level(got)
	require.Equal(b.t, want.String(), got.String(), what)
}

// level removes from an answer what differs by nature.
func level(m any) {
	if h, ok := m.(interface{ GetHeader() *pb.ResponseHeader }); ok && !reflect.ValueOf(m).IsNil() && h.GetHeader() != nil {
		h.GetHeader().ClusterId, h.GetHeader().MemberId, h.GetHeader().RaftTerm = 0, 0, 0
	}
	switch m := m.(type) {
	case *pb.RangeResponse:
		if m == nil {
			return
		}
		for _, kv := range m.Kvs {
			if len(kv.Value) == 0 {
				kv.Lease = 0 // older servers keep it in a range of keys alone
			}
		}
	case *pb.TxnResponse:
		if m == nil {
			return
		}
		for _, r := range m.Responses {
			level(r.GetResponseRange())
			level(r.GetResponseTxn())
		}
	}
}

func TestItAnswersAsEtcdDoes(t *testing.T) {
	b := newBoth(t, 1)
	ctx := t.Context()
	for range 6000 {
		switch n := b.random.IntN(20); {
		case n < 5:
			same(b, b.rangeRequest(true), func(q *pb.RangeRequest) (*pb.RangeResponse, error) { return b.realKV.Range(ctx, q) },
				func(q *pb.RangeRequest) (*pb.RangeResponse, error) { return b.fakeKV.Range(ctx, q) })
		case n < 8:
			same(b, b.put(), func(q *pb.PutRequest) (*pb.PutResponse, error) { return b.realKV.Put(ctx, q) },
				func(q *pb.PutRequest) (*pb.PutResponse, error) { return b.fakeKV.Put(ctx, q) })
		case n < 9:
			same(b, b.delete(), func(q *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) { return b.realKV.DeleteRange(ctx, q) },
				func(q *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) { return b.fakeKV.DeleteRange(ctx, q) })
		case n < 16:
			same(b, b.txn(3), func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.realKV.Txn(ctx, q) },
				func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.fakeKV.Txn(ctx, q) })
		case n == 16:
			same(b, &pb.LeaseGrantRequest{ID: b.lease() + 1, TTL: 3600 + b.random.Int64N(9)},
				func(q *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) { return b.realLease.LeaseGrant(ctx, q) },
				func(q *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) { return b.fakeLease.LeaseGrant(ctx, q) })
		case n == 17:
			same(b, &pb.LeaseRevokeRequest{ID: b.lease() + 1},
				func(q *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
					return b.realLease.LeaseRevoke(ctx, q)
				},
				func(q *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
					return b.fakeLease.LeaseRevoke(ctx, q)
				})
		case n == 18 && b.random.IntN(10) == 0:
			same(b, &pb.CompactionRequest{Revision: b.revision()},
				func(q *pb.CompactionRequest) (*pb.CompactionResponse, error) { return b.realKV.Compact(ctx, q) },
				func(q *pb.CompactionRequest) (*pb.CompactionResponse, error) { return b.fakeKV.Compact(ctx, q) })
		default:
			b.timeToLive()
		}
	}
	t.Logf("refused: %v", b.refused)
	for _, what := range []string{"duplicate key", "compacted", "future revision", "lease not found", "key not found", "value is provided", "lease already exists"} {
		found := false
		for text := range b.refused {
			found = found || containsText(text, what)
		}
		require.True(t, found, "%q was among the answers", what)
	}
	b.many(127)
	b.many(128)
	b.many(129)
	b.watches()
}

// timeToLive compares but for the time that passes between the two.
func (b *both) timeToLive() {
	q := &pb.LeaseTimeToLiveRequest{ID: b.lease() + 1, Keys: true}
	want, err := b.realLease.LeaseTimeToLive(b.t.Context(), q)
	require.NoError(b.t, err)
	got, err := b.fakeLease.LeaseTimeToLive(b.t.Context(), q)
	require.NoError(b.t, err)
	require.ElementsMatch(b.t, want.Keys, got.Keys)
	require.Equal(b.t, want.GrantedTTL, got.GrantedTTL)
	require.InDelta(b.t, want.TTL, got.TTL, 5)
}

// many asks a transaction of n operations, the last of which is one inside.
func (b *both) many(n int) {
	q := &pb.TxnRequest{}
	for range n {
		q.Success = append(q.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}})
	}
	nested := &pb.TxnRequest{Success: q.Success[:1]}
	q.Success[n-1] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: nested}}
	same(b, q, func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.realKV.Txn(b.t.Context(), q) },
		func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.fakeKV.Txn(b.t.Context(), q) })
}

// watches opens the same watches at both, from several revisions on, and compares all events up to the present.
func (b *both) watches() {
	type opened struct {
		what       string
		real, fake clientv3.WatchChan
	}
	var all []opened
	for range 40 {
		key, opts := b.key(), []clientv3.OpOption{}
		if b.random.IntN(2) == 0 {
			key, opts = key[:1], append(opts, clientv3.WithPrefix())
		}
		rev := b.revision()
		opts = append(opts, clientv3.WithRev(rev))
		for _, opt := range []clientv3.OpOption{clientv3.WithFilterDelete(), clientv3.WithFilterPut(), clientv3.WithPrevKV()} {
			if b.random.IntN(3) == 0 {
				opts = append(opts, opt)
			}
		}
		all = append(all, opened{fmt.Sprintf("%q from %d", key, rev),
			b.real.Watch(b.t.Context(), key, opts...), b.fake.Watch(b.t.Context(), key, opts...)})
	}
	ctx := b.t.Context()
	for range 60 {
		same(b, b.txn(2), func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.realKV.Txn(ctx, q) },
			func(q *pb.TxnRequest) (*pb.TxnResponse, error) { return b.fakeKV.Txn(ctx, q) })
	}
	told := make([][2][]string, len(all))
	var wg sync.WaitGroup
	for i, w := range all {
		wg.Go(func() { told[i][0] = read(w.real) })
		wg.Go(func() { told[i][1] = read(w.fake) })
	}
	wg.Wait()
	for i, w := range all {
		require.Equal(b.t, told[i][0], told[i][1], w.what)
	}
}

// read takes what a watch tells until it is silent for a while.
func read(events clientv3.WatchChan) (told []string) {
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return append(told, "closed")
			}
			if err := resp.Err(); err != nil {
				told = append(told, err.Error())
			}
			for _, ev := range resp.Events {
				told = append(told, fmt.Sprint(ev.Type, ev.Kv, ev.PrevKv))
			}
		case <-time.After(time.Second):
			return told
		}
	}
}
