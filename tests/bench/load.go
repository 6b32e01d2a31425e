package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// startWrites puts keys that no lock knows of, at the rate of the busy runs,
// until stop is called. Several writers take turns, so that one slow commit
// does not lower the rate.
func startWrites(ctx context.Context, e *env) (stop func(), err error) {
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	due := make(chan int, writesPerSecond)
	wg.Go(func() {
		defer close(due)
		tick := time.NewTicker(time.Second / writesPerSecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				due <- n
			}
		}
	})
	for range 8 {
		wg.Go(func() {
			for n := range due {
				// A write that fails is only load that is missing.
				_, _ = c.Put(ctx, fmt.Sprintf("/unrelated/%d", n%100), "x")
			}
		})
	}
	return func() { cancel(); wg.Wait(); _ = c.Close() }, nil
}

// A crowd is tickets put by the benchmark itself, standing in for waiters:
// to everyone else a waiter is no more than its key.
type crowd struct {
	c     *clientv3.Client
	lease clientv3.LeaseID
	keys  []string
}

// newCrowd puts n tickets, each in a Txn of its own since two in one would
// share a create revision. The first is put before all others.
func newCrowd(ctx context.Context, c *clientv3.Client, name string, n int) (*crowd, error) {
	l, err := c.Grant(ctx, 600)
	if err != nil {
		return nil, err
	}
	w := &crowd{c: c, lease: l.ID}
	for i := range n {
		w.keys = append(w.keys, fmt.Sprintf("%s/%x-%d", name, int64(l.ID), i+1))
	}
	write := func(key string) error {
		_, err := c.Put(ctx, key, "crowd", clientv3.WithLease(l.ID))
		return err
	}
	if n > 0 {
		if err := write(w.keys[0]); err != nil {
			return nil, err
		}
	}
	const writers = 64
	return w, parallel(writers, func(k int) error {
		for i := 1 + k; i < n; i += writers {
			if err := write(w.keys[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// leave takes the whole crowd away: the lease's end deletes its keys.
func (w *crowd) leave(ctx context.Context) error {
	_, err := w.c.Revoke(ctx, w.lease)
	return err
}
