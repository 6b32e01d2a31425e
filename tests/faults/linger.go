//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file is what the lingering side does beyond the plain one: it holds by
// taking up tickets that idle, and lets them idle when a fault comes.

// lingerTime is a good deal more than a lock takes to be released and taken up
// again, also on a busy machine, and than the 300 ms that the suite gives to
// news; so a ticket that should have gone is still there to be taken up by
// mistake. It is less than a third of the shortest TTL here, so that a ticket
// left to itself goes within one renewal interval, and what the measures have to
// allow for it stays small beside them.
const lingerTime = 500 * time.Millisecond

// acquire takes l for a fault to strike; see take.
func (n *node) acquire(ctx context.Context, l lock) error { return take(ctx, l, n.linger) }

// take takes l. On the lingering side it goes on until the hold is one that took
// up an idle ticket, which the token tells: all holds of a tenure share one.
func take(ctx context.Context, l lock, linger time.Duration) error {
	if err := l.Acquire(ctx); err != nil {
		return err
	}
	m, ok := l.(ourMutex) // elections do not linger
	if linger == 0 || !ok {
		return nil
	}
	for {
		before := m.m.Token()
		if err := l.Release(ctx); err != nil {
			return err
		}
		if err := l.Acquire(ctx); err != nil {
			return err
		}
		if m.m.Token() == before {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil { // the watch on the name has not begun yet
			return fmt.Errorf("the lock does not linger: %w", err)
		}
	}
}

// idler releases its lock and takes it up again all the time, so that faults and
// others find its ticket idle. What follows ended is read when that is closed.
type idler struct {
	stop  context.CancelFunc
	ended chan struct{}
	yes   time.Time // it last asked, and was told that it held
	key   string    // of that hold
	lease clientv3.LeaseID
	again bool // that hold took up an idle ticket
}

func (h *held) startIdling(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	d := &idler{stop: stop, ended: make(chan struct{})}
	h.idler = d
	m := h.lock.(ourMutex)
	go func() {
		defer close(d.ended)
		for token := m.m.Token(); ctx.Err() == nil; {
			for range 2 {
				asked := time.Now()
				if h.Held() {
					d.yes, d.key, d.lease, d.again = asked, h.Key(), h.node.Lease(), m.m.Token() == token
				}
				_ = pause(ctx, 5*time.Millisecond)
			}
			token = m.m.Token()
			_ = h.Release(ctx)
			_ = pause(ctx, 5*time.Millisecond)
			for h.Acquire(ctx) != nil && ctx.Err() == nil {
				_ = pause(ctx, 5*time.Millisecond)
			}
		}
	}()
}

// overtake queues another's lock behind an idler. The idler goes on for a while
// after the other has got it: it must not take up what it has lost.
func (h *held) overtake(ctx context.Context, b lock) error {
	err := b.Acquire(ctx)
	h.next = time.Now()
	if err != nil {
		return fmt.Errorf("%s: next holder: %w", h.name, err)
	}
	if err := pause(ctx, slack); err != nil {
		return err
	}
	h.idler.end()
	h.done, h.key, h.lease = h.idler.yes, h.idler.key, h.idler.lease
	h.still = h.done.After(h.next)
	return nil
}

func (d *idler) end() {
	d.stop()
	<-d.ended
}

var errStays = errors.New("idle tickets did not give way")

// givesWay says whether b gets a lock that its session takes up all the time.
func (n *node) givesWay(ctx context.Context, l, b lock) bool {
	h := &held{lock: l, node: n}
	h.startIdling(ctx)
	defer h.idler.end()
	return b.Acquire(ctx) == nil
}

// idleTickets is what others may do to a ticket that idles. They get the lock,
// and once the news is through, the next Lock must not take that ticket up.
func (e *env) idleTickets(ctx context.Context, s *suite, i impl) error {
	for _, c := range []struct {
		name  string
		short bool
		do    func(ctx context.Context, n, b *node, name string) error
	}{
		{"another queues behind an idle ticket", true, func(ctx context.Context, _, b *node, name string) error {
			if err := within(ctx, slack, b.Mutex(name).Acquire); err != nil {
				return errStays
			}
			_, err := e.cli.Revoke(ctx, b.Lease())
			return err
		}},
		{"idle ticket deleted", true, func(ctx context.Context, _, _ *node, name string) error {
			_, err := e.cli.Delete(ctx, name+"/", clientv3.WithPrefix())
			return err
		}},
		{"idle ticket's lease revoked", false, func(ctx context.Context, n, _ *node, _ string) error {
			_, err := e.cli.Revoke(ctx, n.Lease())
			return err
		}},
		// The waiter may take the deletion of the ticket ahead for its turn although
		// its own went with it. A hold that short is checked by its release alone.
		{"whole prefix deleted, the waiter unlocks at once", true, func(ctx context.Context, n, b *node, name string) error {
			if err := b.Mutex(name).Acquire(ctx); err != nil { // the idle ticket gives way
				return err
			}
			waited := make(chan error, 1)
			go func() {
				l := n.Mutex(name)
				err := l.Acquire(ctx)
				if err == nil {
					_ = l.Release(ctx) // lost or not
				}
				waited <- err
			}()
			_, err := e.waitKeys(ctx, name+"/", 2, 10*time.Second)
			if err == nil {
				_, err = e.cli.Delete(ctx, name+"/", clientv3.WithPrefix())
			}
			return errors.Join(err, <-waited)
		}},
	} {
		if !s.want(c.name) || s.short && !c.short {
			continue
		}
		var t tally
		if err := parallel(s.pick(40, 15), 10, func(int) error {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			var n [2]*node
			for k := range n {
				var err error
				if n[k], err = e.node(ctx, i, ghostTTL); err != nil {
					return err
				}
				defer n[k].close()
			}
			name := e.prefix("idle")
			l := n[0].Mutex(name)
			if err := n[0].acquire(ctx, l); err != nil {
				return err
			}
			if err := l.Release(ctx); err != nil {
				return err
			}
			switch err := c.do(ctx, n[0], n[1], name); {
			case errors.Is(err, errStays):
				t.count(true, slack, err.Error())
				return nil
			case err != nil:
				return err
			}
			// News takes no longer than slack, and the ticket would idle for longer.
			if err := pause(ctx, slack); err != nil {
				return err
			}
			began := time.Now()
			if err := l.Acquire(ctx); err != nil {
				return err
			}
			d := time.Since(began)
			left, err := e.keys(ctx, l.Key())
			t.count(left != 1 && l.Held(), d, "removed tickets taken up")
			return err
		}); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		s.add(row{name: c.name, impl: i.Name(), trials: t.trials, violations: t.violations, figure: t.figure("locked again in")})
	}
	return nil
}
