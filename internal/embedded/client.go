package embedded

import (
	"context"
	"errors"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Client gives an example what it needs to begin: a client of the cluster at
// the comma-separated endpoints, or, where there are none, of an etcd of its
// own. stop gives everything back.
func Client(ctx context.Context, endpoints string) (_ *clientv3.Client, stop func() error, _ error) {
	if endpoints != "" {
		client, err := Dial(strings.Split(endpoints, ",")...)
		if err != nil {
			return nil, nil, err
		}
		return client, client.Close, nil
	}
	etcd, err := Start(ctx)
	if err != nil {
		return nil, nil, err
	}
	client, err := Dial(etcd.Endpoints()...)
	if err != nil {
		return nil, nil, errors.Join(err, etcd.Close())
	}
	return client, func() error { return errors.Join(client.Close(), etcd.Close()) }, nil
}
