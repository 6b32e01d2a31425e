// Command worker is a program that uses etcd's concurrency package: a mutex and an election, each taken, used and given back
// over and over. The command sidebyside builds it twice, once with one import line changed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

const ttl = 3

func main() {
	// worker ID ENDPOINTS
	client, err := clientv3.New(clientv3.Config{
		Endpoints: strings.Split(os.Args[2], ","), DialTimeout: 2 * time.Second, Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: time.Second,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		live(ctx, client, os.Args[1])
	}
	_ = client.Close()
}

// live works until ctx ends or the session does.
func live(ctx context.Context, client *clientv3.Client, id string) {
	cctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.Get(cctx, "ready"); err != nil {
		return
	}
	s, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-s.Done():
			stop()
		case <-ctx.Done():
		}
	}()
	var wg sync.WaitGroup
	wg.Go(func() {
		for m := concurrency.NewMutex(s, "side/mutex"); ctx.Err() == nil; {
			if m.Lock(ctx) == nil {
				work(ctx, client, id, "mutex", m.Key(), m.IsOwner())
			}
			giveBack(m.Unlock)
		}
	})
	wg.Go(func() {
		for e := concurrency.NewElection(s, "side/election"); ctx.Err() == nil; {
			if e.Campaign(ctx, id) == nil {
				work(ctx, client, id, "election", e.Key(), clientv3.Compare(clientv3.CreateRevision(e.Key()), "=", e.Rev()))
			}
			giveBack(e.Resign)
		}
	})
	wg.Wait()
}

// work writes under the guard of the hold, a few times.
func work(ctx context.Context, client *clientv3.Client, id, what, key string, owner clientv3.Cmp) {
	for range 3 {
		wctx, cancel := context.WithTimeout(ctx, time.Second)
		value := fmt.Sprintf("%s %s", id, key)
		_, err := client.Txn(wctx).If(owner).Then(clientv3.OpPut("work/"+what, value)).Commit()
		cancel()
		if err != nil {
			return
		}
	}
}

// giveBack tries as long as a lease lives.
func giveBack(f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), ttl*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if err := f(ctx); err == nil || errors.Is(err, concurrency.ErrLockReleased) || ctx.Err() != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
