package queue

import (
	"context"
	"slices"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// Proclaim changes the ticket's value; turn lets one call follow another. Each request names the revision of the value
// that it replaces: a request that arrives late, after a later one has been answered, finds another revision and does
// nothing. The create revision alone would not tell: it is the same for all values of the ticket.
func (t *Ticket) Proclaim(ctx context.Context, turn chan struct{}, value string) error {
	return t.whileHeld(ctx, func(ctx context.Context) error {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return ctx.Err()
		}
		return t.proclaim(ctx, value)
	})
}

func (t *Ticket) proclaim(ctx context.Context, value string) error {
	q := t.group.q
	for {
		q.mu.Lock()
		mod, next, sure, same := t.mod, t.version+1, len(t.pending) == 0, value == t.value
		if !slices.Contains(t.pending, value) {
			t.pending = append(t.pending, value) // until this one is answered
		}
		q.mu.Unlock()
		resp, once, err := t.replaceValue(ctx, mod, value)
		if err != nil || t.hold.Err() != nil {
			return err
		}
		if resp.Succeeded {
			t.wrote(resp.Header.Revision, next, value)
			return nil
		}
		kv := generationOf(resp.Responses[0].GetResponseRange().Kvs, t.key, t.rev)
		if kv == nil {
			t.Removed(resp.Header.Revision)
			return lease.ErrLost
		}
		// Whoever takes it up on this same lease writes the value again that was there. So another one is ours: the etcd client
		// has repeated the request, and the second copy found what the first had written. Of the same one that cannot be told.
		if clientv3.LeaseID(kv.Lease) == t.lease.ID && t.lease.shared && sure && once && same || t.taken(kv) {
			t.Removed(0)
			return lease.ErrLost
		}
		// An earlier attempt of this call or of another has arrived, or somebody has written it by hand. Where it is the same value
		// again, or not the next version, it may be a take-up after all, on a lease of our own that somebody was given: it is
		// written once more, see keepOurs.
		t.wrote(kv.ModRevision, kv.Version, string(kv.Value))
		if string(kv.Value) == value && !same && kv.Version == next {
			return nil
		}
	}
}

// wrote says at which revision the value was written that is there now.
func (t *Ticket) wrote(rev, version int64, value string) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.mod, t.version, t.value, t.pending = rev, version, value, nil
}

// replaceValue replaces the value that was written at mod, or returns the ticket as it is; once says that it was not asked
// twice.
func (t *Ticket) replaceValue(ctx context.Context, mod int64, value string) (resp *clientv3.TxnResponse, once bool, err error) {
	c := t.group.q.c
	var again atomic.Bool // this may be asked twice at once, see rpc.Retry
	resp, err = rpc.Retry(ctx, c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		start := lease.Now()
		resp, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(t.key), "=", mod)).
			Then(clientv3.OpPut(t.key, value, clientv3.WithLease(t.lease.ID))).
			Else(clientv3.OpGet(t.key)).
			Commit()
		if err != nil || c.Late(lease.Now().Sub(start)) {
			again.Store(true)
		}
		return resp, err
	})
	return resp, !again.Load(), t.leaseGone(err)
}
