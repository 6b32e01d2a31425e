package queue

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file follows tickets until they are deleted: those of others that are waited for, and one of ours that is held.

// follower is a watch that follows one generation of a key until it is deleted.
type follower struct {
	rpc.Watch
	generation
	upTo int64 // what happened up to then it tells no more: it began later, or has told
}

func (f *follower) follows(q *Tickets, p generation) bool { return f.generation == p && f.Open(q.c) }

// follow makes sure that f follows p. It returns the revision up to which has to be read what happened to it: p may have
// been seen as of a later one.
func (f *follower) follow(ctx context.Context, q *Tickets, p generation) (from int64, err error) {
	if f.take(q, p) {
		return f.upTo, nil
	}
	return f.start(ctx, q)
}

// take has f follow p by a watch that there is already; false if there is none.
func (f *follower) take(q *Tickets, p generation) bool {
	if f.key != p.key || !f.Open(q.c) {
		q.keep(f)
		if k := q.findKept(p, nil); k != nil {
			k.over()
			*f = k.follower
		}
	}
	f.generation = p
	return f.Open(q.c)
}

// start opens the watch. Puts are left out: a leader's Proclaim wakes nobody.
func (f *follower) start(ctx context.Context, q *Tickets) (from int64, err error) {
	f.upTo, err = f.Start(ctx, q.c, f.key, clientv3.WithFilterPut())
	return f.upTo, err
}

// goneAt takes one answer off the watch: the revision at which the generation was deleted, 0 if it was not. A watch that
// has broken is stopped; follow opens the next one.
func (f *follower) goneAt(resp clientv3.WatchResponse, ok bool) (at int64) {
	for _, ev := range f.Read(resp, ok) {
		if ev.Type != clientv3.EventTypeDelete {
			continue
		}
		f.upTo = max(f.upTo, ev.Kv.ModRevision)
		// A member that lags may still show the end of an earlier generation: concurrency uses its keys again.
		if at == 0 && ev.Kv.ModRevision > f.rev {
			at = ev.Kv.ModRevision
		}
	}
	return at
}

// goneBefore waits for an answer, and, if listens, for the deletion too: it returns the revision of that if it is told first.
func (f *follower) goneBefore(answer <-chan error, listens bool) (at int64, err error) {
	for {
		events := f.Events
		if !listens {
			events = nil
		}
		select {
		case err = <-answer:
			return 0, err
		case resp, ok := <-events:
			if at = f.goneAt(resp, ok); at > 0 {
				return at, nil
			}
		}
	}
}
