package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/etcdlock/etcdlock"
)

// At most two machines of a fleet load the database at a time.
func ExampleSemaphore() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()

	var now, most atomic.Int64
	var fleet sync.WaitGroup
	for range 6 {
		fleet.Go(func() { // in real life a process of its own
			s, err := etcdlock.NewSession(ctx, client)
			if err != nil {
				fmt.Println(err)
				return
			}
			defer s.Close()
			err = etcdlock.NewSemaphore(s, "/db/loaders", 2).Do(ctx, func(context.Context) error {
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				now.Add(-1)
				return nil
			})
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	fleet.Wait()
	fmt.Println("never more than two:", most.Load() <= 2)
	// Output:
	// never more than two: true
}

// Workers that hold together can be told apart by a number each. Its token is what the store compares, for each number by
// itself.
func ExampleHold_Slot() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	shards := map[int]int64{} // in the store: the greatest token that it has seen, by shard
	write := func(shard int, token int64) error {
		if token < shards[shard] {
			return errors.New("refused: somebody has had the shard since")
		}
		shards[shard] = token
		return nil
	}

	workers := etcdlock.NewSemaphore(s, "/workers", 3)
	var first *etcdlock.Hold
	var late int64
	for i := range 3 {
		hold, err := workers.Acquire(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		shard, token, err := hold.Slot(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("worker on shard", shard, write(shard, token))
		if i == 0 {
			first, late = hold, token
		}
	}
	if err := first.Release(ctx); err != nil {
		fmt.Println(err)
	}
	next, err := workers.Acquire(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	shard, token, err := next.Slot(ctx)
	fmt.Println("the next one on shard", shard, err, write(shard, token))
	fmt.Println("the first one, late:", write(0, late))
	// Output:
	// worker on shard 0 <nil>
	// worker on shard 1 <nil>
	// worker on shard 2 <nil>
	// the next one on shard 0 <nil> <nil>
	// the first one, late: refused: somebody has had the shard since
}
