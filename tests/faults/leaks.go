//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// runLeaks uses one implementation after the other: goroutines of both would
// be counted together.
func runLeaks(ctx context.Context, s *suite) error {
	for _, i := range s.impls {
		e, err := newEnv(ctx, cluster.Options{})
		if err != nil {
			return err
		}
		for _, c := range []struct {
			name string
			n    int
			run  func(context.Context, *suite, impl, int) error
		}{
			{"Lock and Unlock under random cancellation", s.pick(10000, 1000), e.churn},
			{"sessions opened and closed", s.pick(1000, 100), e.sessions},
		} {
			if !s.want(c.name) {
				continue
			}
			// A first round, so that what a client starts once and keeps, its
			// connection and the like, is there before.
			err := c.run(ctx, s, i, 16)
			if err == nil {
				err = pause(ctx, 500*time.Millisecond)
			}
			var before usage
			if err == nil {
				before, err = e.usage(ctx)
			}
			if err == nil {
				err = c.run(ctx, s, i, c.n)
			}
			if err != nil {
				e.close()
				return fmt.Errorf("%s, %s: %w", i.Name(), c.name, err)
			}
			// What is cleaned up behind the calls may take a renewal interval.
			after, bad := usage{}, 0
			for until := time.Now().Add(interval + slack + i.Linger()); ; {
				if after, err = e.usage(ctx); err != nil {
					e.close()
					return err
				}
				if bad = after.above(before); bad == 0 || time.Now().After(until) {
					break
				}
				if err := pause(ctx, 50*time.Millisecond); err != nil {
					e.close()
					return err
				}
			}
			s.add(row{name: c.name, impl: i.Name(), trials: c.n, violations: bad,
				figure: fmt.Sprintf("goroutines, watchers, leases, keys: %v before, %v after", before, after)})
		}
		e.close()
	}
	return nil
}

// usage is goroutines here; watchers, leases and keys in etcd.
type usage [4]int64

func (u usage) above(o usage) int {
	n := 0
	for k := range u {
		if u[k] > o[k] {
			n++
		}
	}
	return n
}

func (e *env) usage(ctx context.Context) (u usage, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Members[0].Addr()+"/metrics", nil)
	if err != nil {
		return u, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Do(req)
	if err != nil {
		return u, err
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "etcd_debugging_mvcc_watcher_total "); ok {
			if _, err := fmt.Sscan(v, &u[1]); err != nil {
				return u, err
			}
		}
	}
	leases, err := e.cli.Leases(ctx)
	if err != nil {
		return u, err
	}
	u[2] = int64(len(leases.Leases))
	u[3], err = e.keys(ctx, "/")
	client.CloseIdleConnections()
	u[0] = int64(runtime.NumGoroutine())
	return u, err
}

// churn locks and unlocks from sixteen goroutines on four keys, with contexts
// that end before, while or after a call waits.
func (e *env) churn(ctx context.Context, s *suite, i impl, n int) error {
	const width = 16
	node, err := e.node(ctx, i, ghostTTL)
	if err != nil {
		return err
	}
	defer node.close()
	name := e.prefix("churn")
	keys := 4
	if node.linger > 0 {
		keys = 12 // most for one goroutine alone: what the next one waits for does not idle
	}
	return parallel(width, width, func(j int) error {
		r := rand.New(rand.NewPCG(s.seed, uint64(j)))
		for range n / width {
			l := node.Mutex(fmt.Sprintf("%s-%d", name, j%keys))
			cut, cancel := context.WithTimeout(ctx, time.Duration(r.Int64N(int64(8*time.Millisecond))))
			err := l.Acquire(cut)
			cancel()
			if err != nil {
				continue
			}
			cut, cancel = context.WithTimeout(ctx, time.Duration(r.Int64N(int64(8*time.Millisecond))))
			_ = l.Release(cut)
			cancel()
		}
		return ctx.Err()
	})
}

func (e *env) sessions(ctx context.Context, _ *suite, i impl, n int) error {
	name := e.prefix("sessions")
	return parallel(n, 8, func(j int) error {
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		s, err := i.Open(limited, e.cli, ghostTTL)
		if err != nil {
			return err
		}
		l := s.Mutex(fmt.Sprintf("%s-%d", name, j))
		if err := take(limited, l, i.Linger()); err != nil {
			return err
		}
		if i.Linger() > 0 && j%2 == 1 { // its ticket idles
			if err := l.Release(limited); err != nil {
				return err
			}
		}
		return s.Close()
	})
}
