// Command master is a service of which several may run and one works. It lives
// until Ctrl-C, through partitions and lost leases: Run campaigns again.
//
//	go run ./examples/master -endpoints 127.0.0.1:2379 -address 10.0.0.1:8000
//
// Start it on several machines or in several terminals, and stop the one that
// leads. Without -endpoints it has an etcd of its own, and nobody to share with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

func main() {
	endpoints := flag.String("endpoints", "", "comma-separated endpoints (default: an etcd of its own)")
	address := flag.String("address", "", "where the others find us while we lead (default: host-pid)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *endpoints, *address); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "master:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoints, address string) (err error) {
	client, stop, err := embedded.Client(ctx, endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	session, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	election := etcdlock.NewElection(session, "/dev/master")
	if leader, err := election.Leader(ctx); err == nil {
		fmt.Println("standing by; the master is", leader.Value)
	}
	return election.Run(ctx, address, func(ctx context.Context) error {
		token := election.Token()
		fmt.Println("master, token", token)
		defer fmt.Println("master no longer, token", token)
		for tick := time.NewTicker(10 * time.Second); ; {
			select {
			case <-tick.C:
				fmt.Println("working")
			case <-ctx.Done():
				return nil // Run resigns or campaigns again, as the case may be
			}
		}
	})
}
