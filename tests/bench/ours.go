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

var errOursLocked = etcdlock.ErrLocked

// lingering opens a session that keeps its locks for a while after Unlock.
func lingering(ctx context.Context, c *clientv3.Client, ttl, d time.Duration) (session, error) {
	return oursSession(ctx, c, etcdlock.WithTTL(ttl), etcdlock.WithLinger(d))
}
