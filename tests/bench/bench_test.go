package main

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// oneMember is a real server process for a Go benchmark, which can then be
// profiled with -cpuprofile and -memprofile.
func oneMember(b *testing.B) *env {
	b.Helper()
	e := &env{members: 1}
	b.Cleanup(e.close)
	require.NoError(b, startServers(context.Background(), e))
	return e
}

func eachLib(b *testing.B, f func(b *testing.B, c *counted, name string)) {
	b.Helper()
	e := oneMember(b)
	for _, l := range both() {
		b.Run(l.name, func(b *testing.B) {
			c, err := newCounted(context.Background(), l, e.endpoints)
			require.NoError(b, err)
			defer c.close()
			b.ReportAllocs()
			f(b, c, e.name(l.name))
		})
	}
}

func BenchmarkUncontended(b *testing.B) {
	eachLib(b, func(b *testing.B, c *counted, name string) {
		m := c.session.mutex(name)
		for b.Loop() {
			require.NoError(b, m.Lock(context.Background()))
			require.NoError(b, m.Unlock(context.Background()))
		}
	})
}

// BenchmarkGoroutines is 64 goroutines on one lock; concurrency's sessions
// would not exclude when shared, so only ours runs here.
func BenchmarkGoroutines(b *testing.B) {
	e := oneMember(b)
	c, err := newCounted(context.Background(), oursLib, e.endpoints)
	require.NoError(b, err)
	defer c.close()
	name := e.name("goroutines")
	b.ReportAllocs()
	var wg sync.WaitGroup
	turn := make(chan struct{})
	for range goroutines {
		m := c.session.mutex(name)
		wg.Go(func() {
			for range turn {
				if err := m.Lock(context.Background()); err != nil {
					b.Error(err)
				} else if err := m.Unlock(context.Background()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		turn <- struct{}{}
	}
	close(turn)
	wg.Wait()
}

// BenchmarkHandoff is two clients and a waiter that has waited: all that is
// ours on the way from Unlock to the next Lock's return.
func BenchmarkHandoff(b *testing.B) {
	e := oneMember(b)
	p, err := newPool(context.Background(), oursLib, e.endpoints, 2)
	require.NoError(b, err)
	defer p.close()
	var got sample
	for b.Loop() {
		require.NoError(b, p.handoffs(context.Background(), e, scene{clients: 2, lines: 1, handoffs: 1}, &got))
	}
	b.ReportMetric(got.median(), "ms/handoff")
}
