package queue

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file keeps a census up to date while somebody waits: by one watch, and by lists that tell what it has not told.

// joinLocked has the census kept up to date until leave is called.
func (c *census) joinLocked() {
	c.waiting++
	if c.stop != nil {
		return
	}
	q := c.g.q
	ctx, cancel := context.WithCancel(q.tasks.Back())
	if q.tasks.Go(func() { c.follow(ctx) }) {
		c.stop, c.err = cancel, nil
	} else {
		cancel() // the Session is closed, and so is what would wait
	}
}

func (c *census) leave() {
	q := c.g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.waiting--; c.waiting == 0 && c.stop != nil {
		c.stop()
		c.stop = nil
	}
}

// follow keeps the census up to date until ctx ends.
func (c *census) follow(ctx context.Context) {
	q, keys := c.g.q, c.class.keys(c.g.prefix)
	q.c.KeepStreamOpen(c.g.prefix)
	f := &feed{
		q: q, key: keys.from, opts: []clientv3.OpOption{clientv3.WithRange(keys.to), clientv3.WithFilterPut()},
		list: c.list, apply: c.apply, check: c.check, told: c.isTold, early: true,
	}
	err := f.run(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if ctx.Err() != nil {
		return // nobody waits, or those who do have another run
	}
	c.stop()
	c.stop, c.err = nil, err
	c.wakeDrainedLocked()
	for _, t := range q.lease.tickets {
		if t.turn != nil && t.turn.counting && t.group == c.g && t.kind.Class == c.class {
			t.recheckLocked()
		}
	}
}

// list reads all permits. What the watch will tell happened after its beginning, and so before this list or after it.
func (c *census) list(ctx context.Context) error {
	kvs, _, rev, err := c.read(ctx, false)
	if err != nil {
		return err
	}
	q := c.g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c.listed, c.upTo = 0, 0 // of another history, where a backup was restored
	c.takeLocked(c.placesOf(kvs), rev, rev)
	c.told, c.due = rev, 0
	c.wakeLocked()
	return nil
}

// check reads the first of the permits again: enough to tell who holds.
func (c *census) check() reading {
	q := c.g.q
	q.mu.Lock()
	known := max(c.told, c.listed)
	q.mu.Unlock()
	return func(ctx context.Context) (take func() error, err error) {
		kvs, more, rev, err := c.read(ctx, true)
		return func() error {
			if rev < known {
				return errRewound
			}
			places, upTo := c.placesOf(kvs), rev
			if more {
				upTo = places[len(places)-1].rev
			}
			q.mu.Lock()
			defer q.mu.Unlock()
			if c.takeLocked(places, rev, upTo) {
				c.due = c.told + 1
			}
			c.wakeLocked()
			return nil
		}, err
	}
}

// read reads the permits, linearizably: all, or enough of the first to tell who holds.
func (c *census) read(ctx context.Context, first bool) (kvs []*mvccpb.KeyValue, more bool, rev int64, err error) {
	op := c.g.listing(c.class)
	if first {
		op = c.g.listing(c.class, clientv3.WithLimit(enough(c.class)),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	}
	answers, rev, err := c.g.q.c.ReadAt(ctx, 0, func(int64) clientv3.Op { return op })
	if err != nil {
		return nil, false, 0, err
	}
	kvs, more = answers[0].Kvs, answers[0].More
	if more && !c.full(kvs) { // nested keys crowd them out
		return c.read(ctx, false)
	}
	return kvs, more, rev, nil
}

// enough is how many keys tell who holds, 0 for all, if no more than half of them are not of permits but of slots.
func enough(c Class) int64 { return 2 * min(c.limit, 1<<20) }

// full reports whether these permits, which are the first, leave no room for another.
func (c *census) full(kvs []*mvccpb.KeyValue) bool {
	queue := append(c.placesOf(kvs), place{weight: 1})
	return c.holdersOf(queue) < len(queue)
}

// apply takes in what the watch tells. A ticket of this Session that somebody removed is told of it, whether it waits or
// holds.
func (c *census) apply(events []*clientv3.Event) {
	q := c.g.q
	q.mu.Lock()
	for _, ev := range events {
		c.goneLocked(string(ev.Kv.Key), ev.Kv.ModRevision)
		c.told = max(c.told, ev.Kv.ModRevision)
	}
	c.wakeLocked()
	q.mu.Unlock()
	for _, ev := range events {
		q.removedBehindUs(string(ev.Kv.Key), ev.Kv.ModRevision)
	}
}

func (c *census) isTold() bool {
	q := c.g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return c.told >= c.due
}
