package etcdlock_test

// Examples for what is left when a lock has been lost without anybody's fault:
// the token, for things outside etcd, and the guard, for those inside.

import (
	"context"
	"errors"
	"fmt"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// disk is something outside etcd that can compare numbers. It keeps the highest token that it has seen and refuses
// whoever comes with a lower one. In SQL: UPDATE … SET token = $1 … WHERE token <= $1.
type disk struct {
	mu    sync.Mutex
	token int64
	text  string
}

var errStale = errors.New("refused: somebody has held the lock since")

func (d *disk) write(token int64, text string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if token < d.token {
		return errStale
	}
	d.token, d.text = token, text
	return nil
}

// A process can be stopped between asking whether it still holds the lock and the write that follows, for longer than
// any lease. No lock service can help that; the one who is written to can, if every write carries the token.
func ExampleMutex_Token() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	var storage disk

	var sessions []*etcdlock.Session
	var locks []*etcdlock.Mutex
	for range 2 {
		s, err := etcdlock.NewSession(ctx, client)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer s.Close()
		sessions = append(sessions, s)
		locks = append(locks, etcdlock.NewMutex(s, "/disk/lock"))
	}

	if err := locks[0].Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}
	first := locks[0].Token() // read once, when the lock is taken, and sent with every write
	fmt.Println("first:", storage.write(first, "by the first"))

	// The first stops for a long time, and its lease ends. (An operator who revokes it is quicker to show.)
	if _, err := client.Revoke(ctx, sessions[0].Lease()); err != nil {
		fmt.Println(err)
		return
	}
	if err := locks[1].Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}
	second := locks[1].Token()
	fmt.Println("second:", storage.write(second, "by the second"))
	fmt.Println("tokens grow:", first < second)

	// The first goes on in the middle of what it was doing.
	fmt.Println("first:", storage.write(first, "by the first, too late"))
	fmt.Println("stored:", storage.text)
	fmt.Println("first is told:", errors.Is(locks[0].Unlock(ctx), etcdlock.ErrLost))
	// Output:
	// first: <nil>
	// second: <nil>
	// tokens grow: true
	// first: refused: somebody has held the lock since
	// stored: by the second
	// first is told: true
}

// Inside etcd no token has to be compared: the transaction itself asks, at the moment it is applied, whether the hold
// still exists.
func ExampleMutex_IsOwner() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()
	s, err := etcdlock.NewSession(ctx, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()

	m := etcdlock.NewMutex(s, "/config/lock")
	if err := m.Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}
	guard := m.IsOwner()
	write := func(value string) {
		resp, err := client.Txn(ctx).If(guard).Then(clientv3.OpPut("/config/color", value)).Commit()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(value, "written:", resp.Succeeded)
	}

	write("green")
	if err := m.Unlock(ctx); err != nil {
		fmt.Println(err)
	}
	write("red") // a straggler of the hold that was released

	if err := m.Lock(ctx); err != nil {
		fmt.Println(err)
		return
	}
	write("blue") // the guard is that of the first hold, for good
	// Output:
	// green written: true
	// red written: false
	// blue written: false
}
