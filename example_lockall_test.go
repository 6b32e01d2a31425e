package etcdlock_test

// Examples of several locks at once, and of what a holder can ask for.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock"
)

// A transfer takes both accounts, or neither. Transfers the other way wait, and never deadlock with this one.
func ExampleLockAll() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	h, err := etcdlock.LockAll(ctx, s, "/account/bob", "/account/alice")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("tickets:", len(h.Keys()), "and a token:", h.Token() > 0)

	_, err = etcdlock.TryLockAll(ctx, s, "/account/alice", "/account/carol")
	if busy := new(etcdlock.LockedError); errors.As(err, &busy) {
		fmt.Println("busy:", busy.Name)
	}
	fmt.Println("released:", h.Release(ctx) == nil)
	// Output:
	// tickets: 2 and a token: true
	// busy: /account/alice
	// released: true
}

// A machine whose clock is a little behind starts the job when another has done it already, and has gone.
func ExampleMutex_UnlockAfter() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	for _, machine := range []string{"machine1", "machine2"} {
		s, err := etcdlock.NewSession(ctx, client, etcdlock.WithIdentity(machine))
		if err != nil {
			fmt.Println(err)
			return
		}
		job := etcdlock.NewMutex(s, "/cron/lock/job9")
		err = job.TryLock(ctx)
		if busy := new(etcdlock.LockedError); errors.As(err, &busy) {
			fmt.Println(machine, "leaves it to", busy.Holder)
		} else if err == nil {
			fmt.Println(machine, "has done job9")
			err = job.UnlockAfter(ctx, time.Minute) // nobody does it again within a minute
		}
		if errors.Is(err, etcdlock.ErrLost) {
			fmt.Println("something was wrong with this run:", err)
		}
		if err := s.Close(); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// machine1 has done job9
	// machine2 leaves it to machine1
}

// A holder that could go on for long stops when somebody else wants the lock.
func ExampleMutex_Wanted() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	m := etcdlock.NewMutex(s, "/upload/42")
	if err := m.Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}

	next := make(chan error, 1)
	go func() { next <- etcdlock.NewMutex(s, "/upload/42").Lock(ctx) }() // another client resumes the upload

	select {
	case <-m.Wanted():
		fmt.Println("somebody waits: stop and let go")
	case <-m.Context().Done():
		fmt.Println("lost:", context.Cause(m.Context()))
	}
	fmt.Println("released:", m.Unlock(ctx) == nil)
	fmt.Println("the next one holds:", <-next == nil)
	// Output:
	// somebody waits: stop and let go
	// released: true
	// the next one holds: true
}
