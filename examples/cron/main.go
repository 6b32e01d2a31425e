// Command cron runs a job once, however many machines start it at the same
// minute: an optimistic lock, with a lease of 5 s for the day the machine dies.
// Clocks differ, so a machine may start when another is done already: the lock
// stays taken for a while after the job, although the process has ended.
//
//	go run ./examples/cron                             # an etcd of its own: runs
//	go run ./examples/cron -endpoints 127.0.0.1:2379   # on two machines: one runs, one goes home
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
	takes := flag.Duration("takes", 2*time.Second, "how long the job takes")
	apart := flag.Duration("apart", 30*time.Second, "how far apart the machines may start it, less than from one run to the next")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *endpoints, *takes, *apart); err != nil {
		fmt.Fprintln(os.Stderr, "cron:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoints string, takes, apart time.Duration) (err error) {
	client, stop, err := embedded.Client(ctx, endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	session, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(5*time.Second))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	job := etcdlock.NewMutex(session, "/cron/lock/job9")
	err = job.TryDo(ctx, func(ctx context.Context) error {
		begun := time.Now()
		fmt.Printf("%s runs job9, token %d\n", session.Identity(), job.Token())
		select { // the job
		case <-time.After(takes):
			fmt.Println("job9 is done")
			return job.UnlockAfter(context.WithoutCancel(ctx), apart-time.Since(begun))
		case <-ctx.Done(): // interrupted, or the lock is lost: it was not done, and another may
			return context.Cause(ctx)
		}
	})
	if busy := new(etcdlock.LockedError); errors.As(err, &busy) {
		fmt.Println("job9 is run by", busy.Holder)
		return nil
	}
	return err
}
