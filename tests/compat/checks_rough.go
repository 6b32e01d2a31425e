package main

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// This file has the checks that cut connections, restart the server and change its rights.

func takeover(s *scene) (string, error) {
	proxy, err := faultproxy.New(s.cluster.Endpoints()[0])
	if err != nil {
		return "", err
	}
	s.after = append(s.after, proxy.Close)
	client, err := cluster.NewClient(proxy.Addr())
	if err != nil {
		return "", err
	}
	s.after = append(s.after, client.Close)
	cut, err := etcdlock.NewSession(s.ctx, client, etcdlock.WithTTL(ttl))
	if err != nil {
		return "", err
	}
	s.after = append(s.after, func() error { proxy.Resume(); return cut.Close() })
	m := etcdlock.NewMutex(cut, s.name)
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	next, err := s.mutexes(1)
	if err != nil {
		return "", err
	}
	got := make(chan error, 1)
	go func() { got <- next[0].Lock(s.ctx) }()
	if err := s.queued(2); err != nil {
		return "", err
	}
	hold := m.Context()
	proxy.Hold(faultproxy.ToServer | faultproxy.ToClient)
	start := time.Now()
	var knew time.Time
	select {
	case <-hold.Done():
		knew = time.Now()
	case <-s.ctx.Done():
		return "", s.ctx.Err()
	}
	err, late := await(s, got)
	if err := errors.Join(err, late); err != nil {
		return "", err
	}
	took := time.Now()
	if hold.Err() == nil || took.Before(knew) {
		return "", fmt.Errorf("the next one held %v before the first one knew", knew.Sub(took))
	}
	if took.Sub(start) > cut.TTL()+2*time.Second {
		return "", fmt.Errorf("taken over after %v", took.Sub(start))
	}
	return ms(took.Sub(knew)), next[0].Unlock(s.ctx)
}

func restart(s *scene) (string, error) {
	ms, err := s.mutexes(2)
	if err != nil {
		return "", err
	}
	if err := ms[0].Lock(s.ctx); err != nil {
		return "", err
	}
	got := make(chan error, 1)
	go func() { got <- ms[1].Lock(s.ctx) }()
	if err := s.queued(2); err != nil {
		return "", err
	}
	if err := errors.Join(s.cluster.Members[0].Restart(), s.cluster.WaitReady(s.ctx)); err != nil {
		return "", err
	}
	if err := errors.Join(ms[0].Context().Err(), ms[0].Verify(s.ctx), ms[0].Unlock(s.ctx)); err != nil {
		return "", err
	}
	if err, late := await(s, got); err != nil || late != nil {
		return "", errors.Join(err, late)
	}
	return "", errors.Join(ms[1].Verify(s.ctx), ms[1].Unlock(s.ctx), s.queued(0))
}

// auth is the last check: it leaves authentication on.
func auth(s *scene) (string, error) {
	for _, user := range []string{"root", "worker"} {
		_, err := s.client.UserAdd(s.ctx, user, "secret")
		if err == nil {
			_, err = s.client.RoleAdd(s.ctx, user)
		}
		if err == nil || errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
			_, err = s.client.UserGrantRole(s.ctx, user, user)
		}
		if err != nil {
			return "", err
		}
	}
	_, err := s.client.RoleGrantPermission(s.ctx, "worker", s.name+"/", clientv3.GetPrefixRangeEnd(s.name+"/"),
		clientv3.PermissionType(clientv3.PermReadWrite))
	if err != nil {
		return "", err
	}
	if _, err = s.client.AuthEnable(s.ctx); err != nil {
		return "", err
	}
	worker, err := clientv3.New(clientv3.Config{
		Endpoints: s.cluster.Endpoints(), Username: "worker", Password: "secret", DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		return "", err
	}
	s.after = append(s.after, worker.Close)
	// Each renewal logs in anew: a TTL of 2 s leaves a busy machine little time for it.
	const ttl = 5 * time.Second
	unused, err := s.sessionOf(worker, etcdlock.WithTTL(ttl))
	if err != nil {
		return "", err
	}
	busy, err := s.sessionOf(worker, etcdlock.WithTTL(ttl))
	if err != nil {
		return "", err
	}
	lease, m := unused.Lease(), etcdlock.NewMutex(busy, s.name)
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	start := time.Now()
	err = errors.Join(
		expect("Lock elsewhere", etcdlock.NewMutex(busy, "/elsewhere").Lock(s.ctx), rpctypes.ErrPermissionDenied),
		expect("TryLock elsewhere", etcdlock.NewMutex(busy, "/elsewhere").TryLock(s.ctx), rpctypes.ErrPermissionDenied),
		expect("Campaign elsewhere", etcdlock.NewElection(busy, "/elsewhere").Campaign(s.ctx, "x"), rpctypes.ErrPermissionDenied))
	for _, oerr := range etcdlock.NewElection(busy, "/elsewhere").Observe(s.ctx) {
		err = errors.Join(err, expect("Observe elsewhere", oerr, rpctypes.ErrPermissionDenied))
	}
	if took := time.Since(start); took > 3*time.Second {
		err = errors.Join(err, fmt.Errorf("told after %v", took))
	}
	if err != nil {
		return "", err
	}
	if err := s.pass(ttl + ttl/2); err != nil {
		return "", err
	}
	if unused.Lease() != lease {
		return "", errors.New("the unused Session lost its lease")
	}
	return "", errors.Join(m.Context().Err(), m.Verify(s.ctx), m.Unlock(s.ctx))
}
