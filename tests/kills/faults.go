package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// This file has the faults: what is done to etcd, or to the way there, while commands run.

func freeze(ctx context.Context, s *stage, _ []*faultproxy.Proxy, _ []*trial) error {
	m := s.cluster.Members[0]
	if err := m.Stop(); err != nil {
		return err
	}
	defer m.Cont()
	return pause(ctx, ttl/2+time.Duration(rand.Int64N(int64(ttl))))
}

func swallow(_ context.Context, _ *stage, links []*faultproxy.Proxy, _ []*trial) error {
	for _, l := range links {
		l.Hold(faultproxy.Both)
	}
	return nil
}

func refuse(_ context.Context, _ *stage, links []*faultproxy.Proxy, _ []*trial) error {
	for _, l := range links {
		l.Cut()
	}
	return nil
}

func remove(ctx context.Context, s *stage, _ []*faultproxy.Proxy, all []*trial) error {
	client, err := cluster.NewClient(s.cluster.Endpoints()...)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, t := range all {
		if _, err := client.Delete(ctx, t.key); err != nil {
			return err
		}
	}
	return nil
}
