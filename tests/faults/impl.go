//go:build unix

package main

import (
	"context"
	"time"

	"github.com/etcdlock/etcdlock"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// impl is a lock implementation under test.
type impl interface {
	Name() string
	Linger() time.Duration // how long a released Mutex stays with its session; 0 for not at all
	Open(ctx context.Context, cli *clientv3.Client, ttl time.Duration) (session, error)
}

// session is one member of an implementation's locking.
type session interface {
	// Mutex is what the side is about: a Mutex, or another way to hold a name.
	Mutex(name string) lock
	// Rival is what such a hold and it exclude from each other: who queues behind it, and who is in its way.
	Rival(name string) lock
	Election(name, value string) lock
	// Observe sends each leader's value; the channel is closed when observing ends.
	Observe(ctx context.Context, name string) <-chan string
	Lease() clientv3.LeaseID
	Close() error
}

// lock is a Mutex or a candidate. Done and Held are its own belief: what it
// tells its user about the hold, whatever etcd says.
type lock interface {
	Acquire(ctx context.Context) error
	Try(ctx context.Context) error
	Release(ctx context.Context) error
	Done() <-chan struct{}
	Held() bool
	Key() string
}

// sides are the implementations in the order of the table, by what -impl calls
// them.
var sides = []struct {
	flag string
	impl
}{
	{"etcdlock", ours{}}, {"lingering", ours{linger: lingerTime, what: "lingering"}},
	{"readers", ours{what: "readers", hold: reader}}, {"permits", ours{what: "permits", hold: permit}},
	{"names", ours{what: "two names", hold: twoNames}},
	{"concurrency", theirs{}},
}

// ours is this library, without or with WithLinger, and with what is held of it.
type ours struct {
	linger time.Duration
	what   string                                      // is different, for the table
	hold   func(s *etcdlock.Session, name string) lock // a Mutex if nil
}

func (o ours) Name() string {
	if o.what != "" {
		return "etcdlock, " + o.what
	}
	return "etcdlock"
}

func (o ours) Linger() time.Duration { return o.linger }

func (o ours) Open(ctx context.Context, cli *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := etcdlock.NewSession(ctx, cli, etcdlock.WithTTL(ttl), etcdlock.WithLinger(o.linger))
	if err != nil {
		return nil, err
	}
	return ourSession{s, o.hold}, nil
}

type ourSession struct {
	s    *etcdlock.Session
	hold func(s *etcdlock.Session, name string) lock
}

func (s ourSession) Mutex(name string) lock {
	if s.hold != nil {
		return s.hold(s.s, name)
	}
	return s.Rival(name)
}

func (s ourSession) Rival(name string) lock  { return ourMutex{etcdlock.NewMutex(s.s, name)} }
func (s ourSession) Lease() clientv3.LeaseID { return s.s.Lease() }
func (s ourSession) Close() error            { return s.s.Close() }

func (s ourSession) Election(name, value string) lock {
	return ourElection{etcdlock.NewElection(s.s, name), value}
}

func (s ourSession) Observe(ctx context.Context, name string) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for l, err := range etcdlock.NewElection(s.s, name).Observe(ctx) {
			if err != nil {
				return
			}
			select {
			case out <- l.Value:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

type ourMutex struct{ m *etcdlock.Mutex }

func (l ourMutex) Acquire(ctx context.Context) error { return l.m.Lock(ctx) }
func (l ourMutex) Try(ctx context.Context) error     { return l.m.TryLock(ctx) }
func (l ourMutex) Release(ctx context.Context) error { return l.m.Unlock(ctx) }
func (l ourMutex) Done() <-chan struct{}             { return l.m.Context().Done() }
func (l ourMutex) Held() bool                        { return l.m.Context().Err() == nil }
func (l ourMutex) Key() string                       { return l.m.Key() }

func (l ourMutex) ReleaseAfter(ctx context.Context, d time.Duration) error {
	return l.m.UnlockAfter(ctx, d)
}

type ourElection struct {
	e     *etcdlock.Election
	value string
}

func (l ourElection) Acquire(ctx context.Context) error { return l.e.Campaign(ctx, l.value) }
func (l ourElection) Try(ctx context.Context) error     { return l.e.Campaign(ctx, l.value) }
func (l ourElection) Release(ctx context.Context) error { return l.e.Resign(ctx) }
func (l ourElection) Done() <-chan struct{}             { return l.e.Context().Done() }
func (l ourElection) Held() bool                        { return l.e.Context().Err() == nil }
func (l ourElection) Key() string                       { return l.e.Key() }

// Calls are the further calls that ask etcd.
func (l ourMutex) Calls() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Verify":  l.m.Verify,
		"Holder":  func(ctx context.Context) error { _, err := l.m.Holder(ctx); return err },
		"Waiters": func(ctx context.Context) error { _, err := l.m.Waiters(ctx); return err },
	}
}

// Calls are the further calls that ask etcd.
func (l ourElection) Calls() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Election.Verify": l.e.Verify,
		"Leader":          func(ctx context.Context) error { _, err := l.e.Leader(ctx); return err },
		"Proclaim":        func(ctx context.Context) error { return l.e.Proclaim(ctx, "other") },
		"Observe": func(ctx context.Context) error {
			for _, err := range l.e.Observe(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
