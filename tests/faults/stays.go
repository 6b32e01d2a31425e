//go:build unix

package main

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

const (
	stayTime = time.Second
	// stayLimit is how long a stay of up to stayTime may last: etcd grants no less than two
	// seconds, and looks for leases that are over twice a second.
	stayLimit = 3 * time.Second
)

// stayer is a lock that can stay taken after its hold.
type stayer interface {
	ReleaseAfter(ctx context.Context, d time.Duration) error
}

// runStays lets processes end their holds so that the locks stay taken for longer than
// their leases last, and strikes at once. Others must get the locks when the time is over:
// not before, and not much later.
func runStays(ctx context.Context, s *suite) error {
	return s.eachImpl(ctx, cluster.Options{}, func(ctx context.Context, e *env, i impl) error {
		for _, c := range []struct {
			name   string
			short  bool
			strike func(*process) error
		}{
			{"its process killed", true, func(p *process) error { return p.cmd.Process.Kill() }},
			{"its process stopped", false, func(p *process) error { return p.cmd.Process.Signal(syscall.SIGSTOP) }},
			{"its process goes on", false, func(*process) error { return nil }},
		} {
			if !s.want(c.name) || s.short && !c.short {
				continue
			}
			b, err := e.node(ctx, i, time.Minute)
			if err != nil {
				return err
			}
			var t tally
			if _, ok := b.Mutex("any").(stayer); ok {
				err = e.stays(ctx, s, i, b, c.strike, &t)
			}
			b.close()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if t.trials > 0 {
				s.add(row{name: c.name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure("free after its time in")})
			}
		}
		return nil
	})
}

func (e *env) stays(ctx context.Context, s *suite, i impl, b *node, strike func(*process) error, t *tally) error {
	const d = knowsTTL + time.Second
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	trials := s.pick(100, 10)
	procs := min(5, trials)
	return parallel(procs, procs, func(j int) error {
		prefix, per := fmt.Sprintf("%s/%d", e.prefix("stays"), j), trials/procs
		p, err := e.child(ctx, i, prefix, per, "-stay", d.String())
		if err != nil {
			return err
		}
		defer p.end()
		called := make([]time.Time, per)
		for q := range called {
			var nanos int64
			if _, err := fmt.Fscanln(p.out, &nanos); err != nil {
				return err
			}
			called[q] = time.Unix(0, nanos)
		}
		if err := strike(p); err != nil {
			return err
		}
		return parallel(per, per, func(q int) error {
			l := b.Rival(fmt.Sprintf("%s-%d", prefix, q))
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			after := time.Since(called[q]) - d
			t.count(after < 0 || after > stayLimit, after, "too early, or too late")
			return l.Release(ctx)
		})
	})
}

// keep is what a child does whose locks stay taken: it says when it called.
func keep(d time.Duration) func(ctx context.Context, i impl, endpoint, prefix string, n int) error {
	return func(ctx context.Context, i impl, endpoint, prefix string, n int) error {
		cli, err := cluster.NewClient(endpoint)
		if err != nil {
			return err
		}
		s, err := i.Open(ctx, cli, knowsTTL)
		if err != nil {
			return err
		}
		called, errs := make([]time.Time, n), make([]error, n)
		var wg sync.WaitGroup
		for j := range n {
			wg.Go(func() {
				l := s.Mutex(fmt.Sprintf("%s-%d", prefix, j))
				if errs[j] = take(ctx, l, i.Linger()); errs[j] == nil {
					called[j] = time.Now()
					errs[j] = l.(stayer).ReleaseAfter(ctx, d)
				}
			})
		}
		wg.Wait()
		fmt.Println("ready")
		for j, at := range called {
			if errs[j] != nil {
				return errs[j]
			}
			fmt.Println(at.UnixNano())
		}
		return nil
	}
}
