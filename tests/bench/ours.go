package main

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

var oursLib = lib{
	name: "etcdlock",
	session: func(ctx context.Context, c *clientv3.Client, ttl time.Duration) (session, error) {
		return oursSession(ctx, c, etcdlock.WithTTL(ttl))
	},
}

func oursSession(ctx context.Context, c *clientv3.Client, opts ...etcdlock.Option) (session, error) {
	s, err := etcdlock.NewSession(ctx, c, opts...)
	if err != nil {
		return nil, err
	}
	return ownSession{s}, nil
}

type ownSession struct{ *etcdlock.Session }

func (s ownSession) mutex(name string) mutex       { return etcdlock.NewMutex(s.Session, name) }
func (s ownSession) election(name string) election { return etcdlock.NewElection(s.Session, name) }

func (s ownSession) writer(name string) queue {
	return mutexQueue{etcdlock.NewRWMutex(s.Session, name)}
}

func (s ownSession) reader(name string) queue {
	return &holdQueue{take: etcdlock.NewRWMutex(s.Session, name).RLock}
}

// holdQueue is a lock whose acquisition returns a Hold.
type holdQueue struct {
	take func(context.Context) (*etcdlock.Hold, error)
	held *etcdlock.Hold
}

func (q *holdQueue) enter(ctx context.Context) (err error) {
	q.held, err = q.take(ctx)
	return err
}

func (q *holdQueue) leave(ctx context.Context) error { return q.held.Release(ctx) }

var errOursLocked = etcdlock.ErrLocked

// lingering opens a session that keeps its locks for a while after Unlock.
func lingering(ctx context.Context, c *clientv3.Client, ttl, d time.Duration) (session, error) {
	return oursSession(ctx, c, etcdlock.WithTTL(ttl), etcdlock.WithLinger(d))
}
