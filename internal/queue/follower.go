package queue

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// follower is a watch that follows one generation of a key until it is deleted.
type follower struct {
	rpc.Watch
	generation
}

func (f *follower) follows(q *Tickets, p generation) bool { return f.generation == p && f.Open(q.c) }

// follow makes sure that f follows p. When it had to open a watch it returns the revision that the watch starts after:
// what happened to the key up to then must be read. Puts are left out: a leader's Proclaim wakes nobody.
func (f *follower) follow(ctx context.Context, q *Tickets, p generation) (from int64, err error) {
	if f.follows(q, p) {
		return 0, nil
	}
	f.generation = p
	return f.Start(ctx, q.c, p.key, clientv3.WithFilterPut())
}

// goneAt takes one answer off the watch: the revision at which the generation was deleted, 0 if it was not. A watch that
// has broken is stopped; follow opens the next one.
func (f *follower) goneAt(resp clientv3.WatchResponse, ok bool) int64 {
	for _, ev := range f.Read(resp, ok) {
		// A member that lags may still show the end of an earlier generation: concurrency uses its keys again.
		if ev.Type == clientv3.EventTypeDelete && ev.Kv.ModRevision > f.rev {
			return ev.Kv.ModRevision
		}
	}
	return 0
}
