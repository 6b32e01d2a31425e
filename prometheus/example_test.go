package etcdlockprom_test

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	etcdlockprom "github.com/etcdlock/etcdlock/prometheus"
)

func Example() {
	newSession := func(ctx context.Context, client *clientv3.Client) (*etcdlock.Session, error) {
		metrics := etcdlockprom.New()
		prometheus.MustRegister(metrics)
		s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(metrics.Hooks()))
		return s, err
	}
	_ = newSession
}
