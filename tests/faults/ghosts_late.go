//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// late starts a call, takes its request off the link and lets the client think
// that the connection broke. Once the call is over, the link is fine again, and
// deliver lets the request arrive at the member.
func (n *node) late(ctx context.Context, call func(context.Context) error) (deliver func(), err error) {
	n.hold(faultproxy.ToServer)
	done := start(ctx, call, 400*time.Millisecond)
	held := false
	// A lingering release returns at once, and its request comes when nobody has
	// taken the ticket up for the linger time.
	if await(ctx, done, 20*time.Millisecond) {
		if err := pause(ctx, n.linger); err != nil {
			return nil, err
		}
	}
	for until := time.Now().Add(300 * time.Millisecond); !held && time.Now().Before(until); {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
		held = n.proxies[0].Held(faultproxy.ToServer) > 0
	}
	if !held {
		return nil, errors.New("no request was sent")
	}
	if err := pause(ctx, 20*time.Millisecond); err != nil { // all of it, not the renewal next to it alone
		return nil, err
	}
	deliver = n.proxies[0].Strand()
	n.proxies[0].Cut()
	await(ctx, done, 700*time.Millisecond)
	n.resume()
	return deliver, nil
}

func (e *env) ghostsLate(ctx context.Context, s *suite, i impl, t *tally) error {
	r := s.rand()
	n := s.pick(60, 12)
	waits := make([]time.Duration, n)
	for j := range waits {
		waits[j] = 100*time.Millisecond + time.Duration(r.Int64N(int64(interval)))
	}
	return parallel(n, 12, func(j int) error {
		n, err := e.node(ctx, i, ghostTTL)
		if err != nil {
			return err
		}
		defer n.close()
		o := n.ops()[j%len(n.ops())]
		key := e.prefix("late")
		call, _, err := o.prepare(ctx, n, key)
		if err != nil {
			return err
		}
		deliver, err := n.late(ctx, call)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		if err := pause(ctx, waits[j]); err != nil {
			return err
		}
		arrived := time.Now()
		deliver()
		if err := pause(ctx, 100*time.Millisecond); err != nil { // applied by now
			return err
		}
		_, err = e.waitKeys(ctx, key+"/", 0, interval+slack+o.kept()-100*time.Millisecond)
		t.count(err != nil, o.beyond(time.Since(arrived)), o.name+" left its key")
		return ctx.Err()
	})
}

// ghostsLateRelease lets a release arrive when its session holds the lock anew.
func (e *env) ghostsLateRelease(ctx context.Context, s *suite, i impl, t *tally) error {
	return parallel(s.pick(40, 8), 8, func(j int) error {
		o, pick := opUnlock, mutex
		if j%2 == 1 {
			o, pick = opResign, election
		}
		n, err := e.node(ctx, i, ghostTTL)
		if err != nil {
			return err
		}
		defer n.close()
		key := e.prefix("release")
		call, _, err := o.prepare(ctx, n, key)
		if err != nil {
			return err
		}
		deliver, err := n.late(ctx, call)
		if err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
		again := pick(n, key)
		limited, cancel := context.WithTimeout(ctx, 2*interval)
		defer cancel()
		began := time.Now()
		if err := again.Acquire(limited); err != nil {
			t.count(true, time.Since(began), "could not lock again after "+o.name)
			return ctx.Err()
		}
		took, mine := time.Since(began), again.Key()
		deliver()
		if err := pause(ctx, slack); err != nil {
			return err
		}
		left, err := e.keys(ctx, mine)
		if err != nil {
			return err
		}
		t.count(left != 1, took, "new holds released by the late "+o.name)
		return nil
	})
}

func sorted(m map[string]int) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
