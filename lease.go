package etcdlock

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// lease is one etcd lease: how long it can be relied on, and what the Session has hung on it.
type lease struct {
	life
	id clientv3.LeaseID

	// Guarded by the Session's mu.
	tickets map[string]*ticket // every ticket that may be in etcd under this lease, by key
	suspect bool               // a put may still arrive late: look for strays until the lease ends
	top     uint64             // the highest n of a ticket
	burnt   uint64             // no n up to this one is used again
}

// grant asks etcd for a lease. A grant whose answer is lost leaves a lease without keys, which ends by itself.
func grant(ctx context.Context, client *clientv3.Client, ttl time.Duration) (*lease, error) {
	sent := now()
	resp, err := client.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return nil, err
	}
	l := &lease{id: resp.ID, tickets: make(map[string]*ticket)}
	l.begin(sent, ttl, seconds(resp.TTL))
	return l, nil
}

// seconds converts a TTL of etcd's without overflow: the largest that etcd takes does not fit a Duration.
func seconds(n int64) time.Duration {
	return time.Duration(min(n, math.MaxInt64/int64(time.Second))) * time.Second
}

// bound returns ctx, ended early by the end of the lease, for requests made on the way to a hold under it. Whoever
// waits long does without: it costs a waiter 0.7 kB.
func (l *lease) bound(ctx context.Context) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(l.ctx, func() { cancel(errRequeue) })
	return bounded, func() { unhook(); cancel(nil) }
}

func leaseAttr(l *lease) slog.Attr { return slog.String("lease", fmt.Sprintf("%x", l.id)) }
