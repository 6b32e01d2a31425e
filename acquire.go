package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// This file takes a ticket from nothing to a hold. Whatever goes wrong on the way, the ticket leaves the queue.

// kind is what the tickets of a Mutex and of an Election differ in.
type kind struct {
	take, give string // the words for it, for errors
	notHeld    error  // why a value that was never taken, or was given back, holds nothing
	relay      bool   // may be handed over in memory
}

var (
	mutexKind    = kind{take: "lock", give: "unlock", notHeld: ErrNotHeld, relay: true}
	electionKind = kind{take: "campaign", give: "resign", notHeld: ErrNotLeader}
)

// acquire queues for name and waits, as long as ctx allows. A ticket that is lost while it waits, with its lease or by
// itself, is replaced by a new one at the end of the queue.
func (s *Session) acquire(ctx context.Context, k kind, name, value string) (*ticket, error) {
	if err := s.usable(ctx, k, name); err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		l, err := s.live(ctx)
		if err != nil {
			return nil, s.failed(ctx, k, name, nil, err)
		}
		t, resumed := s.newTicket(l, k, name, value)
		if resumed {
			return t, nil
		}
		v, err := t.enqueue(ctx)
		if err == nil {
			err = t.wait(ctx, v)
		}
		if err == nil {
			return t, nil
		}
		t.giveUp(err)
		if ctx.Err() == nil && l.ctx.Err() == nil && !errors.Is(err, errRequeue) {
			return nil, s.failed(ctx, k, name, t, err)
		}
		// The lease or the ticket went, or the caller's patience: live tells. A name whose tickets somebody keeps
		// deleting is not queued for in a tight loop.
		if ctx.Err() != nil || l.ctx.Err() == nil && !sleep(ctx, min(time.Millisecond<<min(n, 9), s.TTL()/30)) {
			return nil, s.failed(ctx, k, name, t, err)
		}
	}
}

// usable is what can be told without asking etcd.
func (s *Session) usable(ctx context.Context, k kind, name string) error {
	if s.closing.Err() != nil {
		return fmt.Errorf("etcdlock: %s %q: %w", k.take, name, s.over())
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("etcdlock: %s %q: %w", k.take, name, err)
	}
	return nil
}

// failed words the error of a call that did not get the lock. When the context ended while the ticket waited in the
// queue of an etcd that answers, it is ErrLocked too.
func (s *Session) failed(ctx context.Context, k kind, name string, t *ticket, err error) error {
	switch {
	case s.closing.Err() != nil:
		err = s.over()
	case ctx.Err() != nil:
		s.mu.Lock()
		trouble := s.trouble
		var by *LockedError
		if t != nil && t.rev != 0 {
			by = t.blockerLocked()
		}
		s.mu.Unlock()
		if by != nil && trouble == nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), by)
		} else if err == ctx.Err() || !errors.Is(err, ctx.Err()) { //nolint:errorlint // bare, that is, without etcd's word
			err = overErr(ctx, trouble)
		}
	}
	return fmt.Errorf("etcdlock: %s %q: %w", k.take, name, err)
}
