package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A floor does with bare requests what no lock can do without. Every ratio
// is against it, measured in the same run.
type floor struct {
	a, b  *clientv3.Client // who deletes, who waits
	na    *counter
	nb    *counter
	lease clientv3.LeaseID
	key   string
	gone  <-chan time.Time // when b saw the key deleted
	stop  func()
}

func newFloor(ctx context.Context, e *env, endpoints []string) (*floor, error) {
	a, na, err := newClient(endpoints)
	if err != nil {
		return nil, err
	}
	b, nb, err := newClient(endpoints)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &floor{a: a, b: b, na: na, nb: nb, key: e.name("floor") + "/0"}
	done := make(chan struct{})
	close(done)
	f.stop = func() { cancel(); <-done; _ = a.Close(); _ = b.Close() }
	l, err := a.Grant(ctx, 600)
	if err != nil {
		f.stop()
		return nil, err
	}
	f.lease = l.ID
	events := b.Watch(ctx, f.key, clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	if first := <-events; first.Err() != nil {
		f.stop()
		return nil, first.Err()
	}
	gone := make(chan time.Time, 1)
	f.gone = gone
	done = make(chan struct{})
	go func() {
		defer close(done)
		for r := range events {
			now := time.Now()
			for range r.Events {
				select {
				case gone <- now:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return f, nil
}

// pair is what an uncontended Lock and Unlock come to: a leased put and a
// delete, in a Txn each.
func (f *floor) pair(ctx context.Context) error { return f.pairs(ctx, 1) }

// pairs is the same of n keys together.
func (f *floor) pairs(ctx context.Context, n int) error {
	var absent []clientv3.Cmp
	var puts, deletes []clientv3.Op
	for i := range n {
		key := fmt.Sprintf("%s/pair%d", f.key, i)
		absent = append(absent, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		puts = append(puts, clientv3.OpPut(key, "x", clientv3.WithLease(f.lease)))
		deletes = append(deletes, clientv3.OpDelete(key))
	}
	if _, err := f.a.Txn(ctx).If(absent...).Then(puts...).Commit(); err != nil {
		return err
	}
	_, err := f.a.Txn(ctx).Then(deletes...).Commit()
	return err
}

// handoff is a bare delete until a waiting watcher has the event. The key is
// kept as long as the locks beside it are: processors that have gone to rest
// in between make the bare handoff slower as well.
func (f *floor) handoff(ctx context.Context, holds time.Duration) (time.Duration, error) {
	return f.handoffOf(ctx, 1, holds)
}

// handoffOf is the same where n keys are deleted together.
func (f *floor) handoffOf(ctx context.Context, n int, holds time.Duration) (time.Duration, error) {
	var puts, deletes []clientv3.Op
	for i := range n {
		key := f.key
		if i > 0 {
			key = fmt.Sprintf("%s/%d", f.key, i)
		}
		puts = append(puts, clientv3.OpPut(key, "x", clientv3.WithLease(f.lease)))
		deletes = append(deletes, clientv3.OpDelete(key))
	}
	if _, err := f.a.Txn(ctx).Then(puts...).Commit(); err != nil {
		return 0, err
	}
	if holds > 0 {
		pause(ctx, holds)
	}
	deleting := deletes[0]
	if n > 1 {
		deleting = clientv3.OpTxn(nil, deletes, nil)
	}
	start := time.Now()
	if _, err := f.a.Do(ctx, deleting); err != nil {
		return 0, err
	}
	select {
	case at := <-f.gone:
		return at.Sub(start), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (f *floor) handoffs(ctx context.Context, n int, holds time.Duration, into *sample) error {
	for range n {
		d, err := f.handoff(ctx, holds)
		if err != nil {
			return err
		}
		into.addTime(d)
	}
	return nil
}

// turn is what a change of hands comes to where everybody queues again at
// once: a handoff, and at the same time the put of the one that left before.
func (f *floor) turn(ctx context.Context) (time.Duration, error) {
	if _, err := f.a.Put(ctx, f.key, "x", clientv3.WithLease(f.lease)); err != nil {
		return 0, err
	}
	put := make(chan error, 1)
	start := time.Now()
	go func() {
		_, err := f.b.Put(ctx, f.key+"/next", "x", clientv3.WithLease(f.lease))
		put <- err
	}()
	if _, err := f.a.Delete(ctx, f.key); err != nil {
		return 0, err
	}
	if err := <-put; err != nil {
		return 0, err
	}
	select {
	case <-f.gone:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	took := time.Since(start)
	_, err := f.a.Delete(ctx, f.key+"/next")
	return took, err
}
