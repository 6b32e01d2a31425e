package concurrency

import (
	"context"
	"errors"

	v3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file takes up what there is in a queue already of a lease that the session was given.

// takeUp takes up, by resume, what an earlier session, or another one on the same lease, has in the queue: what holds, and with
// waits also what waits. etcdlock.ErrTaken: there is nothing.
//
// That is the answer of resume, too, when this session itself has the ticket, when another was faster, and when the answer to
// the claim was lost. After the last, the ticket has changed, and is looked at again: nobody else would take it up, and whoever
// queued behind it would wait for as long as the lease is renewed.
func (s *Session) takeUp(ctx context.Context, name string, waits bool, resume func(left etcdlock.Contender) error) error {
	seen := map[string]int64{}
	for {
		left, err := s.left(ctx, name, waits, seen)
		if err != nil {
			return err
		}
		if err = resume(left); !errors.Is(err, etcdlock.ErrTaken) {
			return err
		}
		seen[left.Key] = left.Modified
	}
}

// left is the first such ticket that has not been seen as it is.
func (s *Session) left(ctx context.Context, name string, waits bool, seen map[string]int64) (left etcdlock.Contender, err error) {
	if s.opts.leaseID == v3.NoLease {
		return left, etcdlock.ErrTaken
	}
	queue := etcdlock.NewMutex(s.ask, name) // that of an election is that of a lock of its name
	holder, err := queue.Holder(ctx)
	if errors.Is(err, etcdlock.ErrNotHeld) {
		return left, etcdlock.ErrTaken
	}
	all := []etcdlock.Contender{holder}
	if err == nil && waits {
		var waiters []etcdlock.Contender
		waiters, err = queue.Waiters(ctx)
		all = append(all, waiters...)
	}
	if err != nil {
		return left, err
	}
	for _, c := range all {
		if c.Lease == s.id && seen[c.Key] != c.Modified && !s.has(name, c.Key) {
			return c, nil
		}
	}
	return left, etcdlock.ErrTaken
}

// has reports whether a ticket is, or may be, that of a value or another call of this session. It is asked after the ticket was
// seen, so that whose it is has been noted before.
func (s *Session) has(name, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[key] > 0 || s.orphaned && s.calling[name] > 1 // before that, the library knows
}

// holds notes that a value holds by key, and no more by old.
func (s *Session) holds(old, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key != "" {
		s.held[key]++
	}
	if s.held[old]--; s.held[old] <= 0 {
		delete(s.held, old)
	}
}

// calls notes that a call wants to hold, until it has what it wants, and ended is called.
func (s *Session) calls(name string) (ended func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calling[name]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.calling[name]--; s.calling[name] == 0 {
			delete(s.calling, name)
		}
	}
}
