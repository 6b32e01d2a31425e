package etcdlockotel_test

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"

	"github.com/etcdlock/etcdlock"
	etcdlockotel "github.com/etcdlock/etcdlock/otel"
)

func Example() {
	newSession := func(ctx context.Context, client *clientv3.Client, provider trace.TracerProvider) (*etcdlock.Session, error) {
		s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(etcdlockotel.Hooks(provider)))
		return s, err
	}
	_ = newSession
}
