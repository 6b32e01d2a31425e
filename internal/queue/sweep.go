package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file removes what no ticket's own deletion can: a whole lease, and strays.

// Revoke ends the lease in etcd. Where that is refused, because somebody hung a key on our lease that this client may
// not write, the tickets are deleted one by one instead.
func (q *Tickets) Revoke(ctx context.Context, l *lease.Lease, keys []string) error {
	_, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		return q.c.Revoke(ctx, l.ID)
	})
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	return q.deleteKeys(ctx, l, keys)
}

// deleteKeys deletes those of the keys that are on l.
func (q *Tickets) deleteKeys(ctx context.Context, l *lease.Lease, keys []string) error {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = remains{generation: generation{key: key}}.deletion(l.ID)
	}
	return q.commit(ctx, ops)
}

// commit sends operations, each of which is a Txn, in as many requests as it takes.
func (q *Tickets) commit(ctx context.Context, ops []clientv3.Op) error {
	return rpc.InParts(q.c, q.c.NestedPartSize, ops, func(part []clientv3.Op) error {
		_, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return q.c.Txn(ctx).Then(part...).Commit()
		})
		return err
	})
}

// sweep deletes strays: tickets whose put arrived after its caller had given up and the deletion had been confirmed.
// What etcd lists as attached to the lease is a hint (a leader that just woke may leave keys out), so nothing is
// concluded from a key that is missing; and only names that this Session generated are deleted.
func (q *Tickets) sweep(l *Lease) {
	ctx, cancel := context.WithTimeout(l.Context(), l.Span())
	defer cancel()
	if err := q.deleteStrays(ctx, l, nil); err != nil {
		q.log.Debug("etcdlock: deleting strays", Attr(l.Lease), "error", err)
	}
}

// deleteStrays sweeps once. What is kept is none, though no ticket knows it any more.
func (q *Tickets) deleteStrays(ctx context.Context, l *Lease, kept map[string]bool) error {
	resp, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return q.c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
	})
	if err != nil {
		return fmt.Errorf("listing the lease's keys: %w", err)
	}
	var strays []clientv3.Op
	q.mu.Lock()
	for _, attached := range resp.Keys {
		key := string(attached)
		n := l.numberLocked(key)
		_, claimed := l.claims[key]
		if n == 0 && !claimed || l.tickets[key] != nil || kept[key] {
			continue
		}
		strays = append(strays, remains{generation: generation{key: key}, put: !claimed, after: l.passedOn[key]}.deletion(l.ID))
		if claimed {
			l.claims[key] = true
		} else {
			l.burnLocked(n) // no new ticket of that name may be in the deletion's way
		}
	}
	q.mu.Unlock()
	return q.commit(ctx, strays)
}

// Attr names a lease in a log line.
func Attr(l *lease.Lease) slog.Attr { return slog.String("lease", strconv.FormatInt(int64(l.ID), 16)) }
