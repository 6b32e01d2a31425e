//go:build unix

package main

import (
	"context"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// theirs is etcd's own concurrency package. It has no context for a hold: the
// nearest that it offers is the session's Done, so that is its belief here.
type theirs struct{}

func (theirs) Name() string          { return "concurrency" }
func (theirs) Linger() time.Duration { return 0 }

func (theirs) Open(_ context.Context, cli *clientv3.Client, ttl time.Duration) (session, error) {
	// A context given to NewSession would end the session with it, not the call.
	s, err := concurrency.NewSession(cli, concurrency.WithTTL(int(ttl/time.Second)))
	if err != nil {
		return nil, err
	}
	return theirSession{s}, nil
}

type theirSession struct{ s *concurrency.Session }

func (s theirSession) Lease() clientv3.LeaseID { return s.s.Lease() }
func (s theirSession) Close() error            { return s.s.Close() }

func (s theirSession) Rival(name string) lock { return s.Mutex(name) }

func (s theirSession) Mutex(name string) lock {
	return &theirMutex{m: concurrency.NewMutex(s.s, name), belief: belief{s: s.s}}
}

func (s theirSession) Election(name, value string) lock {
	return &theirElection{e: concurrency.NewElection(s.s, name), value: value, belief: belief{s: s.s}}
}

func (s theirSession) Observe(ctx context.Context, name string) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		for r := range concurrency.NewElection(s.s, name).Observe(ctx) {
			select {
			case out <- string(r.Kvs[0].Value):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

type belief struct {
	s        *concurrency.Session
	acquired atomic.Bool
}

func (b *belief) Done() <-chan struct{} { return b.s.Done() }

func (b *belief) Held() bool {
	select {
	case <-b.s.Done():
		return false
	default:
		return b.acquired.Load()
	}
}

func (b *belief) after(err error) error {
	if err == nil {
		b.acquired.Store(true)
	}
	return err
}

type theirMutex struct {
	belief
	m *concurrency.Mutex
}

func (l *theirMutex) Acquire(ctx context.Context) error { return l.after(l.m.Lock(ctx)) }
func (l *theirMutex) Try(ctx context.Context) error     { return l.after(l.m.TryLock(ctx)) }
func (l *theirMutex) Key() string                       { return l.m.Key() }

func (l *theirMutex) Release(ctx context.Context) error {
	l.acquired.Store(false)
	return l.m.Unlock(ctx)
}

type theirElection struct {
	belief
	e     *concurrency.Election
	value string
}

func (l *theirElection) Acquire(ctx context.Context) error {
	return l.after(l.e.Campaign(ctx, l.value))
}

func (l *theirElection) Try(ctx context.Context) error { return l.Acquire(ctx) }
func (l *theirElection) Key() string                   { return l.e.Key() }

func (l *theirElection) Release(ctx context.Context) error {
	l.acquired.Store(false)
	return l.e.Resign(ctx)
}

// Calls are the further calls that ask etcd.
func (l *theirElection) Calls() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Leader":   func(ctx context.Context) error { _, err := l.e.Leader(ctx); return err },
		"Proclaim": func(ctx context.Context) error { return l.e.Proclaim(ctx, "other") },
		"Observe": func(ctx context.Context) error {
			for range l.e.Observe(ctx) { // drained until its context ends
			}
			return nil
		},
	}
}
