// Command waiting takes a lock that is busy: it waits in line, 3 s at most.
//
//	go run ./examples/waiting                  # the holder is done after 1 s
//	go run ./examples/waiting -busy 5s         # the holder takes longer than we wait
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
	busy := flag.Duration("busy", time.Second, "how long somebody else holds the lock")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *endpoints, *busy); err != nil {
		fmt.Fprintln(os.Stderr, "waiting:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoints string, busy time.Duration) (err error) {
	client, stop, err := embedded.Client(ctx, endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	session, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(30*time.Second))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	// Somebody else. Two values of one name exclude each other in one process too.
	other := etcdlock.NewMutex(session, "/order/4711")
	if err := other.Lock(ctx); err != nil {
		return err
	}
	time.AfterFunc(busy, func() { _ = other.Unlock(ctx) }) // what fails here, Close mends

	order := etcdlock.NewMutex(session, "/order/4711")
	fmt.Println("asked once:", order.TryLock(ctx))
	wait, giveUp := context.WithTimeout(ctx, 3*time.Second)
	defer giveUp()
	start := time.Now()
	err = order.Lock(wait)
	waited := time.Since(start).Round(time.Millisecond)
	if errors.Is(err, etcdlock.ErrLocked) {
		fmt.Printf("gave up after %v: %v\n", waited, err)
		return nil
	} else if err != nil {
		return err
	}
	fmt.Printf("locked after %v, token %d\n", waited, order.Token())
	return order.Unlock(context.WithoutCancel(ctx))
}
