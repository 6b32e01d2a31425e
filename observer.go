package etcdlock

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// observer keeps the contenders of one election in memory and queues the leaders that follow from them.
type observer struct {
	s    *Session
	line *line
	news chan struct{}

	tickets map[string]*mvccpb.KeyValue // owned by follow, as are the next two
	rev     int64                       // what tickets is as of, 0 before the first list
	last    Leader                      // the state queued last
	lastMod int64                       // and its ticket's revision

	mu    sync.Mutex // guards queue
	queue []Leader
}

// take empties the queue. A reader that has fallen behind gets the newest state alone.
func (o *observer) take() []Leader {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.queue
	o.queue = nil
	return q
}

// put queues a state.
func (o *observer) put(l Leader) {
	o.mu.Lock()
	if len(o.queue) == backlog {
		o.queue = o.queue[:0]
	}
	o.queue = append(o.queue, l)
	o.mu.Unlock()
	select {
	case o.news <- struct{}{}:
	default:
	}
}

// follow runs until ctx ends or etcd refuses for good.
func (o *observer) follow(ctx context.Context) error {
	for n := 0; ; n++ {
		before := o.rev
		err := o.pass(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !transient(err) {
			return err
		}
		if o.rev != before {
			n = 0
		}
		if !sleep(ctx, min(20*time.Millisecond<<min(n, 6), time.Second)) {
			return ctx.Err()
		}
	}
}

// pass follows one watch until it breaks. The watch begins "from now on" (see watch.follow for why), then the list is
// read as of the revision that the watch was confirmed at; from there on events tell everything.
//
// Once per third of the TTL it reads the list again, linearizably: a watch on a member that is frozen says nothing, nor
// does one that is ahead of a store restored from a backup. Where the read knows more, the pass ends and the next one
// opens its watch on another stream.
func (o *observer) pass(ctx context.Context) error {
	gen := o.s.streams.gen.Load()
	wctx, cancel := context.WithCancel(streamContext(gen))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	limit := o.s.streams.limit(o.s.patience(1), cancel)
	events := o.s.client.Watch(wctx, o.line.prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	var first clientv3.WatchResponse
	select {
	case first = <-events:
	case <-wctx.Done():
	}
	if err := first.Err(); err != nil {
		limit.Stop()
		if outdated(err) {
			o.s.freshStream(gen)
		}
		// A watch says why in words. A read says in a code whether that is final.
		if _, _, lerr := o.line.list(ctx); lerr != nil && !transient(lerr) {
			return lerr
		}
		return refusal(err)
	}
	limit.Stop()
	if wctx.Err() != nil || !first.Created {
		if ctx.Err() == nil {
			o.s.freshStream(gen)
		}
		return errUnanswered
	}
	o.s.streams.confirmed.Add(1)
	if err := o.relist(ctx); err != nil {
		return err
	}
	due := int64(0) // the revision that the watch must have reached at the next look
	again := time.NewTimer(o.s.TTL() / 3)
	defer again.Stop()
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errUnanswered
			}
			if err := resp.Err(); err != nil {
				return refusal(err)
			}
			o.apply(resp.Events)
		case <-again.C:
			if due > o.rev {
				o.s.freshStream(gen)
				return errUnanswered
			}
			kvs, rev, err := o.line.list(ctx)
			switch {
			case err != nil:
				return err
			case rev < o.rev: // a restored store: what is known is of another history
				o.s.freshStream(gen)
				return errUnanswered
			}
			again.Reset(o.s.TTL() / 3)
			if due = o.newest(kvs); due > o.rev {
				again.Reset(o.s.patience(0)) // the events may be on their way
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// relist reads the whole queue and starts from there.
func (o *observer) relist(ctx context.Context) error {
	kvs, rev, err := o.line.list(ctx)
	if err != nil {
		return err
	}
	first := o.rev == 0
	o.tickets, o.rev = make(map[string]*mvccpb.KeyValue, len(kvs)), rev
	for _, kv := range kvs {
		o.tickets[string(kv.Key)] = kv
	}
	o.publish(first)
	return nil
}

// newest returns a revision that a watch which has told everything must have shown: of the latest change among kvs, or,
// if one that is known is missing there, any after what is known.
func (o *observer) newest(kvs []*mvccpb.KeyValue) int64 {
	newest, known := int64(0), 0
	for _, kv := range kvs {
		newest = max(newest, kv.ModRevision)
		if o.tickets[string(kv.Key)] != nil {
			known++
		}
	}
	if known < len(o.tickets) {
		newest = max(newest, o.rev+1)
	}
	return newest
}

// apply takes events in, one revision at a time: what happened in one Txn is one state.
func (o *observer) apply(events []*clientv3.Event) {
	for i, ev := range events {
		rev := ev.Kv.ModRevision
		if rev <= o.rev {
			continue // the list knew it already
		}
		if key := string(ev.Kv.Key); o.line.direct(key) {
			if ev.Type == clientv3.EventTypeDelete {
				delete(o.tickets, key)
			} else {
				o.tickets[key] = ev.Kv
			}
		}
		if i+1 == len(events) || events[i+1].Kv.ModRevision != rev {
			o.rev = rev
			o.publish(false)
		}
	}
}

// publish queues the leader if the state has changed, or in any case if always.
func (o *observer) publish(always bool) {
	var head *mvccpb.KeyValue
	for _, kv := range o.tickets {
		if head == nil || kv.CreateRevision < head.CreateRevision {
			head = kv
		}
	}
	var l Leader
	var mod int64
	if head != nil {
		l = Leader{Value: string(head.Value), Token: head.CreateRevision, Key: string(head.Key)}
		mod = head.ModRevision
	}
	if always || l != o.last || mod != o.lastMod {
		o.last, o.lastMod = l, mod
		o.put(l)
	}
}
