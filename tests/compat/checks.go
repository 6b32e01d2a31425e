package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the checks of the Mutex and of what ends a hold.

var (
	quiet = []check{
		{"lock", "Lock, Verify, Token, IsOwner and Unlock, 50 times: tokens grow, nothing stays (median of Lock+Unlock)", lock},
		{"trylock", "a busy lock names its holder and writes nothing", trylock},
		{"stay", "UnlockAfter: the key keeps its place, outlives its Session, and goes by itself (how long it stayed of 2 s)", stay},
		{"lockall", "63 names that nest, in one Txn: LockAll, TryLockAll, IsOwner, Verify, Release", lockAll},
		{"handoff", "six waiters, two of one Session, get the lock in order (median of Unlock to Lock)", handoff},
		{"observe", "every state of an election is told, nobody included", observe},
	}
	patient = []check{
		{"elect", "Campaign, Proclaim, Leader, Resign, the next one leads", elect},
		{"interop", "concurrency, v3lock and v3election in one queue with ours, in order", interop},
		{"renewal", "a hold and an unused Session last three TTLs of 2 s", renewal},
		{"loss", "lease revoked: the hold ends with ErrLost, Unlock says so, the Session heals (time to notice)", loss},
		{"removal", "ticket deleted by others: noticed within TTL/3 and a round trip (time to notice)", removal},
		{"takeover", "a holder cut off knows before the next one holds (the lead it had)", takeover},
	}
	rough = []check{
		{"restart", "server killed and restarted: the hold lasts, a waiter is served after it", restart},
		{"auth", "a role limited to the prefix: renewals, no rights elsewhere", auth},
	}
	checks = slices.Concat(quiet, patient, rough)
)

func lock(s *scene) (string, error) {
	es, err := s.session()
	if err != nil {
		return "", err
	}
	m := etcdlock.NewMutex(es, s.name)
	var took []time.Duration
	last := int64(0)
	for range 50 {
		start := time.Now()
		if err := m.Lock(s.ctx); err != nil {
			return "", err
		}
		spent := time.Since(start)
		if m.Token() <= last {
			return "", fmt.Errorf("token %d after %d", m.Token(), last)
		}
		last = m.Token()
		guard := m.IsOwner()
		resp, err := s.client.Txn(s.ctx).If(guard).Commit()
		if err != nil || !resp.Succeeded {
			return "", fmt.Errorf("the guard of a hold is false: %w", err)
		}
		if err := m.Verify(s.ctx); err != nil {
			return "", err
		}
		start = time.Now()
		if err := m.Unlock(s.ctx); err != nil {
			return "", err
		}
		took = append(took, spent+time.Since(start))
		if resp, err = s.client.Txn(s.ctx).If(guard).Commit(); err != nil || resp.Succeeded {
			return "", fmt.Errorf("the guard of a released hold is true: %w", err)
		}
	}
	slices.Sort(took)
	return ms(took[len(took)/2]), s.queued(0)
}

func trylock(s *scene) (string, error) {
	ms, err := s.mutexes(2, etcdlock.WithIdentity("me"))
	if err != nil {
		return "", err
	}
	if err := ms[0].TryLock(s.ctx); err != nil {
		return "", err
	}
	for range 2 { // the second time by the holder that the first one saw
		before, err := s.client.Get(s.ctx, "nothing")
		if err != nil {
			return "", err
		}
		var by *etcdlock.LockedError
		if err := ms[1].TryLock(s.ctx); !errors.As(err, &by) || by.Holder != "me" || by.Token != ms[0].Token() {
			return "", fmt.Errorf("TryLock of a busy lock: %w", err)
		}
		after, err := s.client.Get(s.ctx, "nothing")
		if err != nil {
			return "", err
		}
		if after.Header.Revision != before.Header.Revision {
			return "", errors.New("TryLock of a busy lock wrote")
		}
	}
	if err := ms[0].Unlock(s.ctx); err != nil {
		return "", err
	}
	if err := ms[1].TryLock(s.ctx); err != nil {
		return "", err
	}
	return "", errors.Join(ms[1].Unlock(s.ctx), s.queued(0))
}

func handoff(s *scene) (string, error) {
	all, err := s.mutexes(6)
	if err != nil {
		return "", err
	}
	shared, err := s.session()
	if err != nil {
		return "", err
	}
	all = append(all, etcdlock.NewMutex(shared, s.name), etcdlock.NewMutex(shared, s.name))
	if err := all[0].Lock(s.ctx); err != nil {
		return "", err
	}
	type turn struct {
		i   int
		at  time.Time
		err error
	}
	got := make(chan turn, len(all))
	for i, m := range all[1:] {
		go func() { err := m.Lock(s.ctx); got <- turn{i + 1, time.Now(), err} }()
		if err := s.queued(i + 2); err != nil {
			return "", err
		}
	}
	var took []time.Duration
	for i, m := range all {
		start := time.Now()
		if err := m.Unlock(s.ctx); err != nil {
			return "", err
		}
		if i+1 == len(all) {
			break
		}
		next, err := await(s, got)
		if err != nil || next.err != nil || next.i != i+1 {
			return "", fmt.Errorf("waiter %d after %d: %w", next.i, i, errors.Join(err, next.err))
		}
		took = append(took, next.at.Sub(start))
	}
	slices.Sort(took)
	return ms(took[len(took)/2]), s.queued(0)
}

// ttl is short, so that several go by.
const ttl = 2 * time.Second

func renewal(s *scene) (string, error) {
	unused, err := s.session(etcdlock.WithTTL(ttl))
	if err != nil {
		return "", err
	}
	held, err := s.mutexes(1, etcdlock.WithTTL(ttl))
	if err != nil {
		return "", err
	}
	m, lease := held[0], unused.Lease()
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	if err := s.pass(3 * ttl); err != nil {
		return "", err
	}
	if unused.Lease() != lease {
		return "", errors.New("the unused Session lost its lease")
	}
	return "", errors.Join(m.Context().Err(), m.Verify(s.ctx), m.Unlock(s.ctx))
}

func loss(s *scene) (string, error) {
	es, err := s.session()
	if err != nil {
		return "", err
	}
	m := etcdlock.NewMutex(es, s.name)
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	held := m.Context()
	if err := s.pass(es.TTL() / 15); err != nil { // by then the watch on a held ticket is open
		return "", err
	}
	start := time.Now()
	if _, err := s.client.Revoke(s.ctx, es.Lease()); err != nil {
		return "", err
	}
	if _, err := await(s, held.Done()); err != nil {
		return "", err
	}
	noticed := time.Since(start)
	if noticed > time.Second {
		return "", fmt.Errorf("noticed after %v", noticed)
	}
	if err := errors.Join(expect("cause", context.Cause(held), etcdlock.ErrLost),
		expect("Unlock", m.Unlock(s.ctx), etcdlock.ErrLost)); err != nil {
		return "", err
	}
	if err := m.Lock(s.ctx); err != nil {
		return "", fmt.Errorf("after the loss: %w", err)
	}
	return ms(noticed), m.Unlock(s.ctx)
}

func removal(s *scene) (string, error) {
	held, err := s.mutexes(1, etcdlock.WithTTL(3*time.Second))
	if err != nil {
		return "", err
	}
	m := held[0]
	if err := m.Lock(s.ctx); err != nil {
		return "", err
	}
	hold, start := m.Context(), time.Now()
	if _, err := s.client.Delete(s.ctx, s.name+"/", clientv3.WithPrefix()); err != nil {
		return "", err
	}
	if _, err := await(s, hold.Done()); err != nil {
		return "", err
	}
	noticed := time.Since(start)
	if noticed > 1500*time.Millisecond {
		return "", fmt.Errorf("noticed after %v", noticed)
	}
	return ms(noticed), errors.Join(expect("cause", context.Cause(hold), etcdlock.ErrLost),
		expect("Unlock", m.Unlock(s.ctx), etcdlock.ErrLost))
}
