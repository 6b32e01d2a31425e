package etcdlock

import (
	"context"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file removes what no ticket's own deletion can: a whole lease, and strays.

// revoke ends the lease in etcd. Where that is refused, because somebody hung a key on our lease that this client may
// not write, the tickets are deleted one by one instead.
func (s *Session) revoke(ctx context.Context, l *lease, keys []string) error {
	err := s.ask(ctx, func(ctx context.Context) error {
		_, err := s.client.Revoke(ctx, l.id)
		return err
	})
	if err == nil || errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		return err
	}
	return s.deleteKeys(ctx, keys)
}

// keysLocked lists the tickets that may be in etcd under the lease.
func (l *lease) keysLocked() []string { return slices.Collect(maps.Keys(l.tickets)) }

func (s *Session) deleteKeys(ctx context.Context, keys []string) error {
	return inParts(s, keys, func(part []string) error {
		ops := make([]clientv3.Op, len(part))
		for i, key := range part {
			ops[i] = clientv3.OpDelete(key)
		}
		return s.ask(ctx, func(ctx context.Context) error {
			_, err := s.client.Txn(ctx).Then(ops...).Commit()
			return err
		})
	})
}

// suspects reports whether a put may still arrive late.
func (s *Session) suspects(l *lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.suspect
}

// sweep deletes strays: tickets whose put arrived after its caller had given up and the deletion had been confirmed.
// What etcd lists as attached to the lease is a hint (a leader that just woke may leave keys out), so nothing is
// concluded from a key that is missing; and only names that this Session generated are deleted.
func (s *Session) sweep(l *lease) {
	ctx, cancel := context.WithTimeout(l.ctx, l.span())
	defer cancel()
	var resp *clientv3.LeaseTimeToLiveResponse
	err := s.ask(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.TimeToLive(ctx, l.id, clientv3.WithAttachedKeys())
		return err
	})
	if err != nil {
		s.opts.log.Debug("etcdlock: listing the lease's keys", leaseAttr(l), "error", err)
		return
	}
	var strays []string
	s.mu.Lock()
	for _, key := range resp.Keys {
		if n := l.numberOfLocked(string(key)); n > 0 && l.tickets[string(key)] == nil {
			strays = append(strays, string(key))
			l.burnt = max(l.burnt, n) // no new ticket of that name may be in the deletion's way
		}
	}
	s.mu.Unlock()
	if err := s.deleteKeys(ctx, strays); err != nil {
		s.opts.log.Debug("etcdlock: deleting strays", leaseAttr(l), "error", err)
	}
}
