package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/etcdlock/etcdlock"
)

// This file has the checks of the Election, and of mixed fleets.

// elections returns two candidates, each of a Session of its own.
func (s *scene) elections() (a, b *etcdlock.Election, err error) {
	sa, err := s.session()
	if err != nil {
		return nil, nil, err
	}
	sb, err := s.session()
	return etcdlock.NewElection(sa, s.name), etcdlock.NewElection(sb, s.name), err
}

func elect(s *scene) (string, error) {
	a, b, err := s.elections()
	if err != nil {
		return "", err
	}
	if err := a.Campaign(s.ctx, "a"); err != nil {
		return "", err
	}
	got := make(chan error, 1)
	go func() { got <- b.Campaign(s.ctx, "b") }()
	if err := s.queued(2); err != nil {
		return "", err
	}
	if err := a.Proclaim(s.ctx, "a2"); err != nil {
		return "", err
	}
	l, err := b.Leader(s.ctx)
	want := etcdlock.Leader{
		Value: "a2", Token: a.Token(), Key: a.Key(), Lease: l.Lease, Modified: l.Modified, Version: 2,
	}
	if err != nil || l != want {
		return "", errors.Join(fmt.Errorf("leader %v instead of %v", l, want), err)
	}
	token := a.Token()
	if err := errors.Join(a.Verify(s.ctx), a.Resign(s.ctx)); err != nil {
		return "", err
	}
	if err, late := await(s, got); err != nil || late != nil {
		return "", errors.Join(err, late)
	}
	if b.Token() <= token {
		return "", fmt.Errorf("token %d after %d", b.Token(), token)
	}
	if err := b.Resign(s.ctx); err != nil {
		return "", err
	}
	_, err = a.Leader(s.ctx)
	return "", errors.Join(expect("Leader", err, etcdlock.ErrNoLeader), s.queued(0))
}

func observe(s *scene) (string, error) {
	a, b, err := s.elections()
	if err != nil {
		return "", err
	}
	states, ended := make(chan string), make(chan error, 1)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	go func() {
		for l, err := range b.Observe(ctx) {
			if err != nil {
				ended <- err
				return
			}
			select {
			case states <- l.Value:
			case <-ctx.Done():
			}
		}
		ended <- errors.New("ended silently")
	}()
	var seen []string
	for _, step := range []func() error{
		func() error { return nil },
		func() error { return a.Campaign(s.ctx, "a") },
		func() error { return a.Proclaim(s.ctx, "a2") },
		func() error { return a.Resign(s.ctx) },
		func() error { return a.Campaign(s.ctx, "a3") },
	} {
		if err := step(); err != nil {
			return "", err
		}
		state, err := await(s, states)
		if err != nil {
			return "", fmt.Errorf("after %q: %w", seen, err)
		}
		seen = append(seen, state)
	}
	if want := []string{"", "a", "a2", "", "a3"}; !reflect.DeepEqual(seen, want) {
		return "", fmt.Errorf("saw %q instead of %q", seen, want)
	}
	cancel()
	why, err := await(s, ended)
	return "", errors.Join(err, expect("the end", why, context.Canceled), a.Resign(s.ctx))
}

// peer is one way to take the name.
type peer struct {
	kind string
	take func() error
	give func() error
}

// interop lets each kind queue behind the one before, ours in between.
func interop(s *scene) (string, error) {
	var peers []peer
	for range 2 {
		for _, kind := range []func(*scene) (peer, error){oldMutex, ourMutex, v3lock, ourMutex, v3election, ourElection, oldElection} {
			p, err := kind(s)
			if err != nil {
				return "", err
			}
			peers = append(peers, p)
		}
	}
	if err := peers[0].take(); err != nil {
		return "", err
	}
	type turn struct {
		i   int
		err error
	}
	got := make(chan turn, len(peers))
	for i, p := range peers[1:] {
		go func() { err := p.take(); got <- turn{i + 1, err} }()
		if err := s.queued(i + 2); err != nil {
			return "", err
		}
	}
	for i, p := range peers {
		if len(got) > 0 {
			return "", fmt.Errorf("two hold: %s and another", p.kind)
		}
		if err := p.give(); err != nil {
			return "", fmt.Errorf("%s: %w", p.kind, err)
		}
		if i+1 == len(peers) {
			break
		}
		next, err := await(s, got)
		if err != nil || next.err != nil || next.i != i+1 {
			return "", fmt.Errorf("%s after %s: %w", peers[next.i].kind, p.kind, errors.Join(err, next.err))
		}
	}
	return "", s.queued(0)
}

func ourMutex(s *scene) (peer, error) {
	ms, err := s.mutexes(1)
	if err != nil {
		return peer{}, err
	}
	m := ms[0]
	return peer{"Mutex", func() error { return m.Lock(s.ctx) }, func() error { return m.Unlock(s.ctx) }}, nil
}

func ourElection(s *scene) (peer, error) {
	e, _, err := s.elections()
	return peer{"Election", func() error { return e.Campaign(s.ctx, "x") }, func() error { return e.Resign(s.ctx) }}, err
}

func (s *scene) oldSession() (*concurrency.Session, error) {
	old, err := concurrency.NewSession(s.client, concurrency.WithTTL(20))
	if err == nil {
		s.after = append(s.after, old.Close)
	}
	return old, err
}

func oldMutex(s *scene) (peer, error) {
	old, err := s.oldSession()
	if err != nil {
		return peer{}, err
	}
	m := concurrency.NewMutex(old, s.name)
	return peer{"concurrency.Mutex", func() error { return m.Lock(s.ctx) }, func() error { return m.Unlock(s.ctx) }}, nil
}

func oldElection(s *scene) (peer, error) {
	old, err := s.oldSession()
	if err != nil {
		return peer{}, err
	}
	e := concurrency.NewElection(old, s.name)
	return peer{"concurrency.Election",
		func() error { return e.Campaign(s.ctx, "x") }, func() error { return e.Resign(s.ctx) }}, nil
}

func v3lock(s *scene) (peer, error) {
	lease, err := s.client.Grant(s.ctx, 30)
	if err != nil {
		return peer{}, err
	}
	service := v3lockpb.NewLockClient(s.client.ActiveConnection())
	var held *v3lockpb.LockResponse
	return peer{"v3lock",
		func() (err error) {
			held, err = service.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte(s.name), Lease: int64(lease.ID)})
			return err
		},
		func() error {
			_, err := service.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: held.GetKey()})
			return err
		}}, nil
}

func v3election(s *scene) (peer, error) {
	lease, err := s.client.Grant(s.ctx, 30)
	if err != nil {
		return peer{}, err
	}
	service := v3electionpb.NewElectionClient(s.client.ActiveConnection())
	var held *v3electionpb.CampaignResponse
	return peer{"v3election",
		func() (err error) {
			held, err = service.Campaign(s.ctx,
				&v3electionpb.CampaignRequest{Name: []byte(s.name), Lease: int64(lease.ID), Value: []byte("x")})
			return err
		},
		func() error {
			_, err := service.Resign(s.ctx, &v3electionpb.ResignRequest{Leader: held.GetLeader()})
			return err
		}}, nil
}
