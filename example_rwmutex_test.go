package etcdlock_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/etcdlock/etcdlock"
)

// Many nodes read a configuration that one of them replaces now and then: whoever reads sees all of one version.
func ExampleRWMutex() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()

	var nodes []*etcdlock.RWMutex
	for range 3 { // in real life a process each
		s, err := etcdlock.NewSession(ctx, client)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()
		nodes = append(nodes, etcdlock.NewRWMutex(s, "/config/lock"))
	}
	config := map[string]string{"host": "a", "port": "1"}

	var readers sync.WaitGroup
	var together sync.WaitGroup
	together.Add(len(nodes))
	for _, node := range nodes {
		readers.Go(func() {
			err := node.RDo(ctx, func(context.Context) error {
				together.Done()
				together.Wait() // all of them read at once
				if config["host"]+config["port"] != "a1" {
					fmt.Println("half of one version, half of another")
				}
				return nil
			})
			if err != nil {
				fmt.Println(err)
			}
		})
	}
	readers.Wait()

	err := nodes[0].Do(ctx, func(context.Context) error { // alone
		config["host"], config["port"] = "b", "2"
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	h, err := nodes[1].RLock(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(config["host"], config["port"])
	if err := h.Release(ctx); err != nil { // ErrLost: what was read may have been replaced meanwhile
		fmt.Println(err)
	}
	// Output:
	// b 2
}
