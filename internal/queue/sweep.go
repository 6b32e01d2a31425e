package queue

import (
	"context"
	"errors"
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
	_, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) { return q.c.Revoke(ctx, l.ID) })
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	return q.deleteKeys(ctx, keys)
}

func (q *Tickets) deleteKeys(ctx context.Context, keys []string) error {
	return rpc.InParts(q.c, keys, func(part []string) error {
		ops := make([]clientv3.Op, len(part))
		for i, key := range part {
			ops[i] = clientv3.OpDelete(key)
		}
		_, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
			return q.c.Txn(ctx).Then(ops...).Commit()
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
	resp, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.LeaseTimeToLiveResponse, error) {
		return q.c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
	})
	if err != nil {
		q.log.Debug("etcdlock: listing the lease's keys", Attr(l.Lease), "error", err)
		return
	}
	var strays []string
	q.mu.Lock()
	for _, key := range resp.Keys {
		if n := l.numberLocked(string(key)); n > 0 && l.tickets[string(key)] == nil {
			strays = append(strays, string(key))
			l.burnLocked(n) // no new ticket of that name may be in the deletion's way
		}
	}
	q.mu.Unlock()
	if err := q.deleteKeys(ctx, strays); err != nil {
		q.log.Debug("etcdlock: deleting strays", Attr(l.Lease), "error", err)
	}
}

// Attr names a lease in a log line.
func Attr(l *lease.Lease) slog.Attr { return slog.String("lease", strconv.FormatInt(int64(l.ID), 16)) }
