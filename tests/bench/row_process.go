package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const goroutines = 64

// process is one process in which 64 goroutines want one lock: ours on one
// Session, concurrency with a session for each, since sessions that are
// shared do not exclude there. The floor is as many goroutines putting leased
// keys, whose deletions go out together.
func process(ctx context.Context, e *env, r *report) error {
	ours, err := newCounted(ctx, oursLib, e.endpoints)
	if err != nil {
		return err
	}
	defer ours.close()
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return err
	}
	defer c.Close()
	var sessions []session
	for range goroutines {
		s, err := concurrencyLib.session(ctx, c, sessionTTL)
		if err != nil {
			return err
		}
		defer s.Close()
		sessions = append(sessions, s)
	}
	d := time.Duration(e.pick(2000, 700)) * time.Millisecond
	run := map[string]func() (float64, error){
		"floor": func() (float64, error) { return leasedPuts(ctx, e, d) },
		"own": func() (float64, error) {
			return takeTurns(ctx, d, mutexes(slices.Repeat([]session{ours.session}, goroutines), e.name("process")))
		},
		// One Mutex value for all: the goroutines queue in the value.
		"shared": func() (float64, error) {
			m := ours.session.mutex(e.name("process"))
			return takeTurns(ctx, d, slices.Repeat([]mutex{m}, goroutines))
		},
		"theirs": func() (float64, error) { return takeTurns(ctx, d, mutexes(sessions, e.name("process"))) },
	}
	got := map[string]*sample{}
	for range e.pick(3, 1) {
		for _, name := range []string{"floor", "own", "shared", "theirs"} {
			n, err := run[name]()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if got[name] == nil {
				got[name] = &sample{}
			}
			got[name].add(n)
		}
	}
	b, t := got["floor"].median(), got["theirs"].median()
	for _, v := range []struct{ name, what string }{
		{"own", "64 goroutines, one Session, a Mutex value each"},
		{"shared", "64 goroutines, one Session, one Mutex value"},
	} {
		o := got[v.name].median()
		r.add(result{row: "process", what: v.what, where: e.where(), unit: "/s", floor: b, ours: o, theirs: t,
			goal: atLeast(ratio(o, t), 8, overTheirs), note: "concurrency: a session each"})
	}
	return nil
}

func leasedPuts(ctx context.Context, e *env, d time.Duration) (float64, error) {
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	l, err := c.Grant(ctx, 600)
	if err != nil {
		return 0, err
	}
	defer c.Revoke(context.WithoutCancel(ctx), l.ID)
	name := e.name("puts")
	var total, n atomic.Int64
	keys := make(chan string, 8*goroutines)
	var deleter sync.WaitGroup
	var deleteErr error
	deleter.Go(func() {
		for key := range keys {
			batch := []clientv3.Op{clientv3.OpDelete(key)}
			for len(batch) < 128 && len(keys) > 0 {
				batch = append(batch, clientv3.OpDelete(<-keys))
			}
			if _, err := c.Txn(ctx).Then(batch...).Commit(); err != nil {
				deleteErr = err
			}
		}
	})
	start := time.Now()
	err = parallel(goroutines, func(int) error {
		for time.Since(start) < d {
			key := fmt.Sprintf("%s/%d", name, n.Add(1))
			if _, err := c.Put(ctx, key, "x", clientv3.WithLease(l.ID)); err != nil {
				return err
			}
			total.Add(1)
			keys <- key
		}
		return nil
	})
	took := time.Since(start)
	close(keys)
	deleter.Wait()
	if err == nil {
		err = deleteErr
	}
	return float64(total.Load()) / took.Seconds(), err
}
