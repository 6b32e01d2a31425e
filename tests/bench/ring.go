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

// passTurns is how often a second the turn goes round n bare clients, each with a
// connection of its own and a watch that stands: whoever sees the key of the
// one before it deleted deletes its own, and puts it again in a Txn that also
// reads the last key of the queue. That is a fair queue that nobody ever
// leaves or joins, so nobody has to look who is ahead, and it is no lock.
//
// With asLock each sends what a lock has to: its keys are leased, it deletes only what it has put, and it follows the key
// before that one, too; when that has gone it reads the three last keys, so as to know whether it is next.
func passTurns(ctx context.Context, e *env, n int, d time.Duration, asLock bool) (perSecond float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := make([]*clientv3.Client, n)
	events, farther := make([]clientv3.WatchChan, n), make([]clientv3.WatchChan, n)
	leased, put := make([][]clientv3.OpOption, n), make([]int64, n)
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
		if asLock {
			lease, err := clients[i].Grant(ctx, 60)
			if err != nil {
				return 0, err
			}
			leased[i] = append(leased[i], clientv3.WithLease(lease.ID))
			// Should this fail, the lease ends by itself.
			defer clients[i].Revoke(context.WithoutCancel(ctx), lease.ID)
		}
		resp, err := clients[i].Put(ctx, key(i), "x", leased[i]...)
		if err != nil {
			return 0, err
		}
		put[i] = resp.Header.Revision
		follow := func(j int) (clientv3.WatchChan, error) {
			events := clients[i].Watch(ctx, key(j), clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
			first := <-events
			return events, first.Err()
		}
		if events[i], err = follow(i + n - 1); err != nil {
			return 0, err
		}
		if asLock {
			if farther[i], err = follow(i + n - 2); err != nil {
				return 0, err
			}
		}
	}
	var turns atomic.Int64
	turn := func(i int) error {
		leave := clients[i].Txn(ctx)
		if asLock {
			leave = leave.If(clientv3.Compare(clientv3.CreateRevision(key(i)), "=", put[i]))
		}
		if _, err := leave.Then(clientv3.OpDelete(key(i))).Commit(); err != nil {
			return err
		}
		turns.Add(1)
		last := clientv3.OpGet(prefix, append(clientv3.WithLastCreate(), clientv3.WithKeysOnly())...)
		enqueue := clients[i].Txn(ctx)
		if asLock {
			enqueue = enqueue.If(clientv3.Compare(clientv3.CreateRevision(key(i)), "=", 0))
		}
		resp, err := enqueue.Then(last, clientv3.OpPut(key(i), "x", leased[i]...)).Commit()
		if err == nil {
			put[i] = resp.Header.Revision
		}
		return err
	}
	look := func(i int) error {
		_, err := clients[i].Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(3),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortDescend), clientv3.WithSerializable())
		return err
	}
	failed := make(chan error, 2*n)
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
		if !asLock {
			continue
		}
		wg.Go(func() {
			for range farther[i] {
				if err := look(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	select {
	case err := <-failed:
		return 0, fmt.Errorf("the ring is broken: %w", err)
	case <-time.After(d):
	}
	return float64(turns.Load()) / time.Since(start).Seconds(), nil
}
