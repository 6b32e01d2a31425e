package etcdlock_test

// Examples of a lock. Each starts an etcd of its own; what is printed is checked.
// Those of an election are in example_election_test.go.

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

// exampleEtcd stands for what a program has anyway: a client of its cluster.
func exampleEtcd() (_ *clientv3.Client, stop func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client, stopEtcd, err := embedded.Client(ctx, "")
	if err != nil {
		panic(err)
	}
	return client, func() {
		if err := stopEtcd(); err != nil {
			fmt.Println("stopping:", err)
		}
	}
}

// Three nodes, one master: whoever holds /dev/lock. Its ticket's value is its address, so the others know where to
// find it, and so does whoever runs etcdctl get --prefix /dev/lock.
func Example_masterByLock() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()

	// In real life each node is a process of its own, on a machine of its own.
	nodes := []string{"node1", "node2", "node3"}
	locks := map[string]*etcdlock.Mutex{}
	for i, node := range nodes {
		s, err := etcdlock.NewSession(ctx, client, etcdlock.WithIdentity(fmt.Sprintf("10.0.0.%d:8000", i+1)))
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()
		locks[node] = etcdlock.NewMutex(s, "/dev/lock")
	}

	for _, node := range nodes {
		err := locks[node].TryLock(ctx)
		if busy := new(etcdlock.LockedError); errors.As(err, &busy) {
			fmt.Println(node, "stands by, the master is at", busy.Holder)
		} else if err == nil {
			fmt.Println(node, "is master")
		}
	}

	// The master leaves; the next in line takes over.
	if err := locks["node1"].Unlock(ctx); err != nil {
		fmt.Println(err)
	}
	if err := locks["node2"].Lock(ctx); err == nil {
		fmt.Println("node2 is master")
	}
	master, err := locks["node3"].Holder(ctx)
	fmt.Println("node3 finds it at", master.Identity, err)
	// Output:
	// node1 is master
	// node2 stands by, the master is at 10.0.0.1:8000
	// node3 stands by, the master is at 10.0.0.1:8000
	// node2 is master
	// node3 finds it at 10.0.0.2:8000 <nil>
}

// An optimistic lock: every machine's cron starts job 9 at the same minute, one of them runs it, the others go home at
// once. The 5 s are how long the job stays locked when the machine that runs it dies.
func ExampleMutex_TryLock() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()

	for _, machine := range []string{"machine1", "machine2"} {
		s, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(5*time.Second), etcdlock.WithIdentity(machine))
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()

		job := etcdlock.NewMutex(s, "/cron/lock/job9")
		err = job.TryLock(ctx)
		var busy *etcdlock.LockedError
		switch {
		case err == nil:
			fmt.Println(machine, "runs job9")
			// job.Unlock(ctx) when it is done; here it is still running while the other machine asks.
		case errors.As(err, &busy):
			fmt.Println(machine, "leaves it to", busy.Holder)
		default:
			fmt.Println("etcd:", err)
		}
	}
	// Output:
	// machine1 runs job9
	// machine2 leaves it to machine1
}

// A waiting lock: the lease is for 30 s, and who finds the lock busy waits in line, 3 s at most.
func ExampleMutex_Lock() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(30*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	other := etcdlock.NewMutex(s, "/order/4711") // values of one name exclude each other, in one Session too
	if err := other.Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}

	m := etcdlock.NewMutex(s, "/order/4711")
	fmt.Println("TryLock finds it busy:", errors.Is(m.TryLock(ctx), etcdlock.ErrLocked))

	var work sync.WaitGroup
	work.Go(func() { _ = other.Unlock(ctx) }) // the other is done sooner or later

	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	switch err := m.Lock(wait); {
	case err == nil: // wait has no bearing on the hold: only on the waiting
		fmt.Println("locked within 3 s")
		fmt.Println("unlocked:", m.Unlock(ctx))
	case errors.Is(err, etcdlock.ErrLocked):
		fmt.Println("still busy after 3 s:", err)
	default:
		fmt.Println("etcd:", err)
	}
	work.Wait()
	// Output:
	// TryLock finds it busy: true
	// locked within 3 s
	// unlocked: <nil>
}

// Do takes the lock, runs the work and releases, in that order. The work's context ends when the lock can no longer be
// relied on.
func ExampleMutex_Do() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	m := etcdlock.NewMutex(s, "/report/daily")
	err = m.Do(ctx, func(ctx context.Context) error {
		for page := 1; page <= 3; page++ {
			if ctx.Err() != nil {
				return context.Cause(ctx) // lost, or no longer wanted: stop before anything else is touched
			}
			fmt.Println("page", page)
		}
		return nil
	})
	fmt.Println("done:", err)
	// Output:
	// page 1
	// page 2
	// page 3
	// done: <nil>
}

// tally knows nothing of etcd: it wants a sync.Locker.
type tally struct {
	mu sync.Locker
	n  *int
}

func (t tally) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	*t.n++
}

// Code that takes a sync.Locker gets a distributed one. It cannot be told of a lost lock, so this is for work that is
// fenced, or that may overlap for once.
func ExampleMutex_Locker() {
	client, stop := exampleEtcd()
	defer stop()
	shared := 0
	var work sync.WaitGroup
	for range 3 { // three processes, let us say
		s, err := etcdlock.NewSession(context.Background(), client)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()
		t := tally{mu: etcdlock.NewMutex(s, "/tally").Locker(), n: &shared}
		for range 4 {
			work.Go(t.add)
		}
	}
	work.Wait()
	fmt.Println("counted", shared)
	// Output:
	// counted 12
}
