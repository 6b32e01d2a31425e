package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A side is one of the things compared by a row that repeats one operation.
type side struct {
	name     string
	op       func(ctx context.Context) error
	requests func() counts

	times  sample // ms of each operation
	sent   sample // requests of each operation
	server serverCounts
	kinds  counts
	ops    int
}

// interleave runs the sides in short blocks, A B C, B C A, ..., so that
// whatever else the machine does falls on all of them alike. The servers'
// counters are read around each block: they belong to no single client.
func interleave(ctx context.Context, e *env, sides []*side, rounds int) error {
	for _, s := range sides {
		if err := s.op(ctx); err != nil { // connections and caches, unmeasured
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for round := range rounds {
		for k := range sides {
			if err := sides[(k+round)%len(sides)].run(ctx, e, 10); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *side) run(ctx context.Context, e *env, n int) error {
	before, err := scrape(ctx, e.endpoints[0])
	if err != nil {
		return err
	}
	for range n {
		sent := s.requests()
		start := time.Now()
		if err := s.op(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.times.addTime(time.Since(start))
		d := s.requests().sub(sent)
		s.sent.add(float64(d.total()))
		for k, v := range d {
			s.kinds[k] += v
		}
		s.ops++
	}
	after, err := scrape(ctx, e.endpoints[0])
	if err != nil {
		return err
	}
	s.server.add(after.sub(before))
	return nil
}

func (s *side) commits() float64   { return s.server.commits / float64(s.ops) }
func (s *side) revisions() float64 { return s.server.revisions / float64(s.ops) }
func (s *side) fsyncs() float64    { return s.server.fsyncs / float64(s.ops) }

// counted is one counted client for each library, and one for the floor.
type counted struct {
	client  *clientv3.Client
	count   *counter
	session session
}

func newCounted(ctx context.Context, l lib, endpoints []string) (*counted, error) {
	c, n, err := newClient(endpoints)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = c.Close() }) // as in newPool
	s, err := l.session(ctx, c, sessionTTL)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s: %w", l.name, err)
	}
	return &counted{c, n, s}, nil
}

func (c *counted) close() {
	_ = c.session.Close()
	_ = c.client.Close()
}
