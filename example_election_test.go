package etcdlock_test

// Examples of an election. Those of a lock are in example_test.go.

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock"
)

// An election is a lock whose holder has something to say: the value it campaigned with, for all to see.
func ExampleElection() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	e := etcdlock.NewElection(s, "/dev/master")
	if err := e.Campaign(ctx, "node1, starting"); err != nil { // returns once it leads
		fmt.Println(err)
		return
	}
	if err := e.Proclaim(ctx, "node1, ready"); err != nil {
		fmt.Println(err)
	}
	leader, err := e.Leader(ctx)
	fmt.Printf("%s %v, by its own token: %v\n", leader.Value, err, leader.Token == e.Token())

	fmt.Println("resigned:", e.Resign(ctx))
	_, err = e.Leader(ctx)
	fmt.Println("nobody leads:", errors.Is(err, etcdlock.ErrNoLeader))
	// Output:
	// node1, ready <nil>, by its own token: true
	// resigned: <nil>
	// nobody leads: true
}

// Run is for a service that lives for months. Its lead will be lost now and then, to a partition or a stalled machine;
// Run stops the work, campaigns again and starts it anew, until it is told to end.
func ExampleElection_Run() {
	client, stop := exampleEtcd()
	defer stop()
	// In a real service: signal.NotifyContext(context.Background(), syscall.SIGTERM).
	ctx, shutdown := context.WithCancel(context.Background())
	defer shutdown()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	term := 0
	err = etcdlock.NewElection(s, "/service/leader").Run(ctx, "node1", func(ctx context.Context) error {
		term++
		fmt.Println("leading, term", term)
		switch term {
		case 1: // something happens to the lease, months from now
			if _, err := client.Revoke(ctx, s.Lease()); err != nil {
				return err
			}
		case 2: // and one day somebody stops the service
			shutdown()
		}
		<-ctx.Done() // serve, and stop when this ends
		fmt.Println("stopped; the lead was lost:", errors.Is(context.Cause(ctx), etcdlock.ErrLost))
		return nil
	})
	fmt.Println("Run:", err)
	// Output:
	// leading, term 1
	// stopped; the lead was lost: true
	// leading, term 2
	// stopped; the lead was lost: false
	// Run: context canceled
}

// Observe tells who leads, from now on and in order; nobody is a state too. The loop ends by break, or with an error
// that says why.
func ExampleElection_Observe() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	// What happens next in this cluster, each as soon as the state before has been seen.
	node1, node2 := etcdlock.NewElection(s, "/dev/master"), etcdlock.NewElection(s, "/dev/master")
	next := []func() error{
		func() error { return node1.Campaign(ctx, "node1") },
		func() error { return node1.Proclaim(ctx, "node1, moved") },
		func() error { return node1.Resign(ctx) },
		func() error { return node2.Campaign(ctx, "node2") },
	}

	for leader, err := range etcdlock.NewElection(s, "/dev/master").Observe(ctx) {
		switch {
		case err != nil:
			fmt.Println("no longer observing:", err)
		case leader.Token == 0:
			fmt.Println("nobody leads")
		default:
			fmt.Println(leader.Value, "leads")
		}
		if len(next) == 0 {
			break
		}
		if err := next[0](); err != nil {
			fmt.Println(err)
			break
		}
		next = next[1:]
	}
	// Output:
	// nobody leads
	// node1 leads
	// node1, moved leads
	// nobody leads
	// node2 leads
}
