package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

// A lib is one of the libraries compared. The rows are written once, against
// these interfaces, so that both go through exactly the same code.
type lib struct {
	name    string
	session func(ctx context.Context, c *clientv3.Client, ttl time.Duration) (session, error)
}

type session interface {
	mutex(name string) mutex
	election(name string) election
	reader(name string) queue // the two sides of a read-write lock
	writer(name string) queue
	Close() error
}

type mutex interface {
	Lock(ctx context.Context) error
	TryLock(ctx context.Context) error
	Unlock(ctx context.Context) error
}

type election interface {
	Campaign(ctx context.Context, value string) error
	Resign(ctx context.Context) error
}

var concurrencyLib = lib{
	name: "concurrency",
	session: func(_ context.Context, c *clientv3.Client, ttl time.Duration) (session, error) {
		s, err := concurrency.NewSession(c, concurrency.WithTTL(int(ttl/time.Second)))
		if err != nil {
			return nil, err
		}
		return concurrencySession{s}, nil
	},
}

type concurrencySession struct{ *concurrency.Session }

func (s concurrencySession) mutex(name string) mutex { return concurrency.NewMutex(s.Session, name) }
func (s concurrencySession) election(name string) election {
	return concurrency.NewElection(s.Session, name)
}

func (s concurrencySession) reader(name string) queue {
	return readQueue{recipe.NewRWMutex(s.Session, name)}
}

func (s concurrencySession) writer(name string) queue {
	return writeQueue{recipe.NewRWMutex(s.Session, name)}
}

// readQueue and writeQueue are the sides of the read-write lock among etcd's recipes. Its calls take no context.
type (
	readQueue  struct{ *recipe.RWMutex }
	writeQueue struct{ *recipe.RWMutex }
)

func (q readQueue) enter(context.Context) error  { return q.RLock() }
func (q readQueue) leave(context.Context) error  { return q.RUnlock() }
func (q writeQueue) enter(context.Context) error { return q.Lock() }
func (q writeQueue) leave(context.Context) error { return q.Unlock() }

// A queue is what Mutex and Election share: the handoff rows run on either.
type queue interface {
	enter(ctx context.Context) error
	leave(ctx context.Context) error
}

type mutexQueue struct{ mutex }

func (q mutexQueue) enter(ctx context.Context) error { return q.Lock(ctx) }
func (q mutexQueue) leave(ctx context.Context) error { return q.Unlock(ctx) }

type electionQueue struct{ election }

func (q electionQueue) enter(ctx context.Context) error { return q.Campaign(ctx, "candidate") }
func (q electionQueue) leave(ctx context.Context) error { return q.Resign(ctx) }

func isLocked(err error) bool {
	return errors.Is(err, concurrency.ErrLocked) || errors.Is(err, errOursLocked)
}
