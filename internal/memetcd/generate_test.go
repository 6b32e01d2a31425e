package memetcd

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file makes random requests.

func containsText(s, part string) bool { return strings.Contains(s, part) }

func (b *both) key() string { return string("kmp"[b.random.IntN(3)]) + string("/ab"[b.random.IntN(3)]) }

func (b *both) lease() int64 { return b.random.Int64N(4) }

func (b *both) revision() int64 {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	return max(b.server.rev-20+b.random.Int64N(24), 1)
}

// span picks one key, a prefix, a range, or everything from a key on.
func (b *both) span() (from, to []byte) {
	switch b.random.IntN(5) {
	case 0:
		return []byte(b.key()), []byte(b.key()) // which may be empty or the wrong way round
	case 1:
		return []byte(b.key()), []byte{0}
	case 2:
		p := b.key()[:1]
		return []byte(p), prefixEnd(p)
	default:
		return []byte(b.key()), nil
	}
}

func (b *both) rangeRequest(past bool) *pb.RangeRequest {
	from, to := b.span()
	q := &pb.RangeRequest{
		Key: from, RangeEnd: to, SortTarget: pb.RangeRequest_SortTarget(b.random.IntN(5)),
		SortOrder: pb.RangeRequest_SortOrder(b.random.IntN(3)), Serializable: b.random.IntN(2) == 0,
		KeysOnly: b.random.IntN(3) == 0, CountOnly: b.random.IntN(8) == 0,
	}
	if b.random.IntN(3) == 0 {
		q.Limit = 1 + b.random.Int64N(4)
	}
	if past && b.random.IntN(3) == 0 {
		q.Revision = b.revision()
	}
	for _, bound := range []*int64{&q.MinModRevision, &q.MaxModRevision, &q.MinCreateRevision, &q.MaxCreateRevision} {
		if b.random.IntN(6) == 0 {
			*bound = b.revision()
		}
	}
	return q
}

func (b *both) put() *pb.PutRequest {
	q := &pb.PutRequest{Key: []byte(b.key()), Value: fmt.Appendf(nil, "v%d", b.random.IntN(4)), PrevKv: b.random.IntN(3) == 0}
	if b.random.IntN(3) == 0 {
		q.Lease = b.lease()
	}
	if b.random.IntN(6) == 0 {
		q.IgnoreValue = true
		if b.random.IntN(6) != 0 {
			q.Value = nil
		}
	}
	q.IgnoreLease = b.random.IntN(6) == 0 && (q.Lease == 0 || b.random.IntN(6) == 0)
	return q
}

func (b *both) delete() *pb.DeleteRangeRequest {
	from, to := b.span()
	if b.random.IntN(3) != 0 {
		to = nil // or the store stays empty
	}
	return &pb.DeleteRangeRequest{Key: from, RangeEnd: to, PrevKv: b.random.IntN(3) == 0}
}

func (b *both) compare() *pb.Compare {
	from, to := b.span()
	c := &pb.Compare{Key: from, RangeEnd: to, Result: pb.Compare_CompareResult(b.random.IntN(4)), Target: pb.Compare_CompareTarget(b.random.IntN(5))}
	rev := b.revision()
	if b.random.IntN(3) == 0 {
		rev = 0
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: b.random.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: rev}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: rev}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: fmt.Appendf(nil, "v%d", b.random.IntN(4))}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: b.lease()}
	}
	return c
}

// txn makes a transaction with others inside, at most depth deep. One that only reads may read the past.
func (b *both) txn(depth int) *pb.TxnRequest {
	q := &pb.TxnRequest{}
	for range b.random.IntN(3) {
		q.Compare = append(q.Compare, b.compare())
	}
	for _, ops := range []*[]*pb.RequestOp{&q.Success, &q.Failure} {
		for range b.random.IntN(4) {
			op := &pb.RequestOp{}
			switch n := b.random.IntN(8); {
			case n < 3:
				op.Request = &pb.RequestOp_RequestRange{RequestRange: b.rangeRequest(b.random.IntN(8) == 0)}
			case n < 5:
				op.Request = &pb.RequestOp_RequestPut{RequestPut: b.put()}
			case n < 6:
				op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: b.delete()}
			case depth > 1:
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: b.txn(depth - 1)}
			default:
				continue
			}
			*ops = append(*ops, op)
		}
	}
	return q
}
