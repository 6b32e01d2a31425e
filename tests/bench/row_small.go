package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// small is what holding and waiting cost in memory, goroutines and requests.
func small(ctx context.Context, e *env, r *report) error {
	if err := held(ctx, e, r); err != nil {
		return err
	}
	return waiting(ctx, e, r)
}

type footprint struct{ bytes, goroutines float64 }

// settle measures after the collector has run twice: the first run may only
// have queued finalizers.
func settle() footprint {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{float64(m.HeapAlloc), float64(runtime.NumGoroutine())}
}

func (f footprint) per(n int, before footprint) footprint {
	return footprint{(f.bytes - before.bytes) / float64(n), (f.goroutines - before.goroutines) / float64(n)}
}

// quiesce waits until a client has been quiet for a second, at most twenty.
func quiesce(ctx context.Context, k *counter) {
	last, same := counts{}, 0
	for range 80 {
		now := k.snapshot()
		now[keepAlive] = 0
		if same++; now != last {
			last, same = now, 0
		}
		if same == 4 {
			return
		}
		pause(ctx, 250*time.Millisecond)
	}
}

// held is 10,000 locks held in one process on one session.
func held(ctx context.Context, e *env, r *report) error {
	n := e.pick(10000, 1000)
	const ttl = 6 * time.Second
	got := make([]footprint, 2)
	rate := make([]counts, 2)
	for k, l := range both() {
		if err := heldBy(ctx, e, l, n, ttl, &got[k], &rate[k]); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	what := fmt.Sprintf("%d held locks, one session", n)
	r.add(result{row: "small", what: what, where: e.where(), unit: "bytes each",
		ours: got[0].bytes, theirs: got[1].bytes, goal: atMost(got[0].bytes, 1024, "bytes")})
	r.add(result{row: "small", what: what, where: e.where(), unit: "goroutines each",
		ours: got[0].goroutines, theirs: got[1].goroutines, goal: atMost(got[0].goroutines, 0.01, "goroutines")})
	r.add(result{row: "small", what: what, where: e.where(), unit: "renewals per TTL/3",
		ours: float64(rate[0][keepAlive]) / 3, theirs: float64(rate[1][keepAlive]) / 3,
		goal: atMost(float64(rate[0][keepAlive])/3, 1.34, "renewals"),
		note: fmt.Sprintf("all requests in 3 × TTL/3: %s / %s", rate[0], rate[1])})
	return nil
}

func heldBy(ctx context.Context, e *env, l lib, n int, ttl time.Duration, got *footprint, rate *counts) error {
	c, k, err := newClient(e.endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := l.session(ctx, c, ttl)
	if err != nil {
		return err
	}
	defer s.Close()
	name := e.name("held-" + l.name)
	// The values are kept: a lock that is held is reachable.
	ms := make([]mutex, n)
	lock := func(i int) error {
		ms[i] = s.mutex(fmt.Sprintf("%s/%d/lock", name, i))
		return ms[i].Lock(ctx)
	}
	if err := lock(0); err != nil { // streams and buffers that come once
		return err
	}
	before := settle()
	err = parallel(connections, func(w int) error {
		for i := 1 + w; i < n; i += connections {
			if err := lock(i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	*got = settle().per(n-1, before)
	sent := k.snapshot()
	pause(ctx, ttl)
	*rate = k.snapshot().sub(sent)
	runtime.KeepAlive(ms)
	return ctx.Err()
}

// waiting is 1,000 waiters: of ours on one Session, each behind a foreign
// holder, which is the dearest case as each needs to know of another key;
// and all on one lock. Of concurrency each needs a session of its own on one
// lock, since waiters that share one do not exclude.
func waiting(ctx context.Context, e *env, r *report) error {
	const n = 1000
	type setup struct {
		what     string
		lib      lib
		sessions int
		names    int
	}
	var got []footprint
	var streams, watches []int64
	for _, s := range []setup{
		{"1,000 locks", oursLib, 1, n},
		{"one lock", oursLib, 1, 1},
		{"one lock, a session each", oursLib, n, 1},
		{"1,000 locks", concurrencyLib, 1, n},
		{"one lock, a session each", concurrencyLib, n, 1},
	} {
		f, k, err := waitingOn(ctx, e, s.lib, n, s.sessions, s.names)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", s.lib.name, s.what, err)
		}
		got = append(got, f)
		streams = append(streams, k.watchStreams.Load())
		watches = append(watches, k.n[watchCreate].Load())
	}
	for _, v := range []struct {
		what         string
		ours, theirs int
	}{
		{"1,000 waiters of one session behind 1,000 foreign holders", 0, 3},
		{"1,000 waiters of one process on one lock", 1, 4},
		{"1,000 waiters with a session each on one lock", 2, 4},
	} {
		o, t := got[v.ours], got[v.theirs]
		var heap, run goal
		if v.ours < 2 {
			heap = atMost(o.bytes, 4096, "bytes")
			run = atMost(o.goroutines, 2.02, "goroutines, the caller's own included,")
		}
		r.add(result{row: "small", what: v.what, where: e.where(), unit: "heap bytes each", ours: o.bytes, theirs: t.bytes, goal: heap})
		r.add(result{row: "small", what: v.what, where: e.where(), unit: "goroutines each", ours: o.goroutines, theirs: t.goroutines, goal: run,
			note: fmt.Sprintf("watches %d / %d", watches[v.ours], watches[v.theirs])})
		r.add(result{row: "small", what: v.what, where: e.where(), unit: "watch streams", ours: float64(streams[v.ours]), theirs: float64(streams[v.theirs]),
			goal: atMost(float64(streams[v.ours]), 1, "streams")})
	}
	return nil
}

func waitingOn(ctx context.Context, e *env, l lib, n, sessions, names int) (f footprint, _ *counter, err error) {
	c, k, err := newClient(e.endpoints)
	if err != nil {
		return f, nil, err
	}
	defer c.Close()
	holder, err := e.observer.Grant(ctx, 600)
	if err != nil {
		return f, nil, err
	}
	defer e.observer.Revoke(context.WithoutCancel(ctx), holder.ID)
	name := e.name("waiting-" + l.name)
	lockName := func(i int) string { return fmt.Sprintf("%s/%d/lock", name, i%names) }
	for i := range names {
		if _, err := e.observer.Put(ctx, lockName(i)+"/holder", "", clientv3.WithLease(holder.ID)); err != nil {
			return f, nil, err
		}
	}
	before := settle()
	ss := make([]session, sessions)
	defer func() {
		_ = parallel(min(sessions, connections), func(w int) error {
			for i := w; i < sessions; i += connections {
				if ss[i] != nil {
					_ = ss[i].Close()
				}
			}
			return nil
		})
	}()
	for i := range ss {
		if ss[i], err = l.session(ctx, c, sessionTTL); err != nil {
			return f, nil, err
		}
	}
	seen, err := e.puts(ctx, name)
	if err != nil {
		return f, nil, err
	}
	wctx, quit := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer quit()
	for i := range n {
		m := ss[i%sessions].mutex(lockName(i))
		wg.Go(func() {
			if err := m.Lock(wctx); err == nil {
				_ = unlock(m)
			}
		})
	}
	// concurrency's mutexes that share a session share a ticket as well.
	want := n
	if l.name == concurrencyLib.name {
		want = max(sessions, names)
	}
	if err := seen(want); err != nil {
		return f, nil, err
	}
	quiesce(ctx, k) // the watches follow the tickets
	f = settle().per(n, before)
	// A copy: closing ends the streams that are to be counted.
	was := &counter{}
	was.watchStreams.Store(k.watchStreams.Load())
	was.n[watchCreate].Store(k.n[watchCreate].Load())
	return f, was, nil
}
