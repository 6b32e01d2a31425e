package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
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
