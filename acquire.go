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
	verb  string // for errors
	relay bool   // may be handed over in memory
}

var (
	mutexKind    = kind{verb: "lock", relay: true}
	electionKind = kind{verb: "campaign"}
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

// tryAcquire takes the lock if nobody has it or waits for it.
func (s *Session) tryAcquire(ctx context.Context, k kind, name, value string, seen peer) (*ticket, error) {
	if err := s.usable(ctx, k, name); err != nil {
		return nil, err
	}
	for {
		l, err := s.live(ctx)
		if err != nil {
			return nil, s.failed(ctx, k, name, nil, err)
		}
		t, resumed := s.newTicket(l, k, name, value)
		if resumed {
			return t, nil
		}
		if by := t.line.busy(); by != nil {
			t.forget()
			return nil, by
		}
		var by *LockedError
		lctx, release := l.bound(ctx)
		if err = t.line.settle(lctx); err == nil {
			by, err = t.enqueueIfEmpty(lctx, seen)
		}
		release()
		switch {
		case err == nil && by != nil:
			t.forget()
			return nil, by
		case err == nil:
			err = t.grant()
		}
		if err == nil {
			return t, nil
		}
		t.giveUp(err)
		if !errors.Is(err, errRequeue) && l.ctx.Err() == nil || ctx.Err() != nil {
			return nil, s.failed(ctx, k, name, nil, err)
		}
	}
}

// usable is what can be told without asking etcd.
func (s *Session) usable(ctx context.Context, k kind, name string) error {
	if name == "" {
		return ErrInvalidName
	}
	if s.closing.Err() != nil {
		return fmt.Errorf("etcdlock: %s %q: %w", k.verb, name, s.over())
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("etcdlock: %s %q: %w", k.verb, name, err)
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
		trouble, queued := s.trouble, t != nil && t.rev != 0
		s.mu.Unlock()
		if queued && trouble == nil {
			by := t.blocker
			if by == nil {
				by = &LockedError{Name: name}
			}
			err = fmt.Errorf("%w: %w", ctx.Err(), by)
		} else if err == ctx.Err() || !errors.Is(err, ctx.Err()) { //nolint:errorlint // bare, that is, without etcd's word
			err = overErr(ctx, trouble)
		}
	}
	return fmt.Errorf("etcdlock: %s %q: %w", k.verb, name, err)
}

// busy tells that a ticket of this Session holds, which needs no asking.
func (ln *line) busy() *LockedError {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := ln.holder; t != nil && t.state == held && !t.hold.lost() {
		return &LockedError{Name: ln.name, Holder: t.value, Token: t.rev, Key: t.key}
	}
	return nil
}

// settle waits until the tickets that this Session has released are gone from etcd: they would make the name look
// busy. Where others of its tickets are queued, the name is busy anyway.
func (ln *line) settle(ctx context.Context) error {
	s := ln.s
	for {
		s.mu.Lock()
		ln.buryDoomedLocked()
		if n := len(ln.doomed); n == 0 || ln.refs > n+1 {
			s.mu.Unlock()
			return nil
		}
		t, last := ln.doomed[len(ln.doomed)-1], ln.last
		changed, refused := t.changedLocked(), t.refusedLocked()
		s.mu.Unlock()
		if refused {
			return nil // no use waiting; etcd will say what it thinks of this client
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return overErr(ctx, last)
		}
	}
}
