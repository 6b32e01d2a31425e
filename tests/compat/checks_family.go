package main

import (
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the checks of what rests on more of etcd than one key: a key that moves to another lease, and transactions
// as large as etcd takes.

func stay(s *scene) (string, error) {
	gone, err := s.session()
	if err != nil {
		return "", err
	}
	ms, err := s.mutexes(1)
	if err != nil {
		return "", err
	}
	m := etcdlock.NewMutex(gone, s.name)
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	token, key, guard, lease := m.Token(), m.Key(), m.IsOwner(), gone.Lease()
	start := time.Now()
	if err := errors.Join(m.UnlockAfter(s.ctx, 2*time.Second), gone.Close()); err != nil {
		return "", err
	}
	resp, err := s.client.Get(s.ctx, key)
	if err != nil {
		return "", err
	}
	if len(resp.Kvs) != 1 || resp.Kvs[0].CreateRevision != token || clientv3.LeaseID(resp.Kvs[0].Lease) == lease {
		return "", fmt.Errorf("the ticket of a lock that stays: %v", resp.Kvs)
	}
	if resp, err := s.client.Txn(s.ctx).If(guard).Commit(); err != nil || resp.Succeeded {
		return "", fmt.Errorf("the guard of a hold that is over is true: %w", err)
	}
	if err := ms[0].Lock(s.ctx); err != nil {
		return "", err
	}
	took := time.Since(start)
	if took < 2*time.Second || ms[0].Token() <= token {
		return "", fmt.Errorf("it stayed for %v; token %d after %d", took, ms[0].Token(), token)
	}
	return took.Round(100 * time.Millisecond).String(), errors.Join(ms[0].Unlock(s.ctx), s.queued(0))
}

func lockAll(s *scene) (string, error) {
	es, err := s.session()
	if err != nil {
		return "", err
	}
	names := make([]string, 63)
	for i := range names {
		names[i] = fmt.Sprint(s.name, "/", i)
	}
	names[62] = s.name // the others nest in it
	for _, take := range []func() (*etcdlock.Hold, error){
		func() (*etcdlock.Hold, error) { return etcdlock.LockAll(s.ctx, es, names...) },
		func() (*etcdlock.Hold, error) { return etcdlock.TryLockAll(s.ctx, es, names...) },
	} {
		h, err := take()
		if err != nil {
			return "", err
		}
		resp, err := s.client.Txn(s.ctx).If(h.IsOwner()...).Commit()
		if err != nil || !resp.Succeeded {
			return "", fmt.Errorf("the guard of a hold is false: %w", err)
		}
		if err := errors.Join(h.Verify(s.ctx), h.Release(s.ctx), s.queued(0)); err != nil {
			return "", err
		}
	}
	return "", nil
}
