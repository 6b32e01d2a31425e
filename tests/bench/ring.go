package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ring is how often a second the turn goes round n bare clients, each with a
// connection of its own and a watch that stands: whoever sees the key of the
// one before it deleted deletes its own, and puts it again in a Txn that also
// reads the last key of the queue. That is a fair queue that nobody ever
// leaves or joins, so nobody has to look who is ahead, and it is no lock.
func ring(ctx context.Context, e *env, n int, d time.Duration) (perSecond float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := make([]*clientv3.Client, n)
	events := make([]clientv3.WatchChan, n)
	prefix := e.name("ring") + "/"
	key := func(i int) string { return fmt.Sprint(prefix, i%n) }
	var wg sync.WaitGroup
	defer func() {
		cancel()
		wg.Wait()
		for _, c := range clients {
			if c != nil {
				err = errors.Join(err, c.Close())
			}
		}
	}()
	for i := range n {
		if clients[i], _, err = newClient(e.endpoints); err != nil {
			return 0, err
		}
		if _, err := clients[i].Put(ctx, key(i), "x"); err != nil {
			return 0, err
		}
		events[i] = clients[i].Watch(ctx, key(i+n-1), clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
		if first := <-events[i]; first.Err() != nil {
			return 0, first.Err()
		}
	}
	var turns atomic.Int64
	turn := func(i int) error {
		if _, err := clients[i].Delete(ctx, key(i)); err != nil {
			return err
		}
		turns.Add(1)
		last := clientv3.OpGet(prefix, append(clientv3.WithLastCreate(), clientv3.WithKeysOnly())...)
		_, err := clients[i].Txn(ctx).Then(last, clientv3.OpPut(key(i), "x")).Commit()
		return err
	}
	failed := make(chan error, n)
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			var err error
			if i == 0 {
				err = turn(i)
			}
			for err == nil {
				if _, ok := <-events[i]; !ok {
					break // its context is over
				}
				err = turn(i)
			}
			failed <- err
		})
	}
	select {
	case err := <-failed:
		return 0, fmt.Errorf("the ring is broken: %w", err)
	case <-time.After(d):
	}
	return float64(turns.Load()) / time.Since(start).Seconds(), nil
}
