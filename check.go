package etcdlock

import (
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file has what a health endpoint asks. There are two questions, and they go to two probes: whether this process can
// hold anything is no reason to kill it, since a whole fleet would be killed while etcd is away; that it goes on with what
// it no longer holds is one.

// Check tells whether the Session can hold anything now: nil if it has a live lease. It sends nothing and waits for nothing.
//
// Wire it to a readiness probe, never to one that restarts: while etcd is away it fails in every process, and a Session
// mends that by itself. The error says since when there is no lease, why the last one was lost, and what etcd answered to
// the requests for the next; errors.Is finds what that was. It matches ErrLost, or, of a Session that is over and stays so,
// what its calls return: ErrClosed, ErrClientClosed, ErrNoLease or ErrLeaseLost.
func (s *Session) Check() error {
	if over := s.over(); over != nil {
		return fmt.Errorf("etcdlock: check: %w", over)
	}
	l := s.leases.current()
	if l.Alive() {
		return nil
	}
	at, _ := l.Ended()
	err := fmt.Errorf("etcdlock: check: no live lease for %v, since lease %x was lost (%s): %w",
		lease.Now().Sub(at).Round(time.Millisecond), l.ID, lossOf(l), ErrLost)
	if last := s.leases.LastErr(); last != nil {
		err = fmt.Errorf("%w; last from etcd: %w", err, s.client.Why(last))
	}
	return err
}

// CheckOverrun tells whether this process goes on with what it no longer holds: nil unless a function of Do or Run has run
// for longer than limit after the end of its hold. It sends nothing and waits for nothing.
//
// Wire it to a liveness probe: such a function does not listen to its context, others may hold by now, and a restart is
// what helps. It does not fail because etcd is away. The limit is how long your functions may take to stop, some seconds;
// within a twentieth of the TTL nobody else holds yet, unless somebody has deleted the ticket. A function may still be
// reported after Close, which does not wait for it longer than its hold would have lasted.
func (s *Session) CheckOverrun(limit time.Duration) error {
	if limit < 0 {
		return fmt.Errorf("etcdlock: check: limit of %v is negative: pass how long a function may take to stop", limit)
	}
	n, longest := s.tickets.Overruns()
	if n == 0 || longest.For <= limit {
		return nil
	}
	o := overrun(longest)
	return fmt.Errorf("etcdlock: check: a function still runs %v after it lost %s %q (token %d), over the limit of %v",
		o.For.Round(time.Millisecond), o.Kind, queue.Short(o.Name), o.Token, limit)
}
