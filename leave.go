package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// This file takes tickets out of the queue. leave puts a ticket on its line's list of the doomed, from which flights
// (flight.go) carry it off. So a caller that runs out of patience leaves nothing behind.

// leave takes the ticket out of the queue: a release if it is held and alive, giving up otherwise. It returns at once;
// the deletion is sent in the background and ends with the ticket being gone.
func (t *ticket) leave() { t.leaveIf(sending, waiting, held, idle) }

// leaveIf leaves if the ticket is in one of these states.
func (t *ticket) leaveIf(in ...state) {
	t.lease.alive() // ends it if it is over, which may not be done under mu
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(in, t.state) {
		t.leaveLocked()
	}
}

// leaveLocked leaves, with the deletion in the background.
func (t *ticket) leaveLocked() {
	if t.doomLocked() {
		t.line.flyLocked()
	}
}

// leaveNow is leave for a caller that waits for the deletion: it makes the first attempt itself, which saves two
// changes of goroutine, and leaves the rest to the background.
func (t *ticket) leaveNow(ctx context.Context) {
	t.lease.alive()
	s := t.line.s
	s.mu.Lock()
	due := t.state == held && t.doomLocked()
	s.mu.Unlock()
	if !due {
		return
	}
	// With the lease's end the ticket goes by itself.
	more, err := t.line.attempt(ctx, min(s.patience(0), t.lease.left()))
	if more || err != nil {
		s.mu.Lock()
		t.line.flyLocked()
		s.mu.Unlock()
	}
}

// doomLocked puts the ticket among the doomed, and reports whether the caller has to fly them.
func (t *ticket) doomLocked() bool {
	if t.lease.ctx.Err() != nil {
		// The lease is over for everything; what etcd still has of it goes when it is revoked or expires.
		t.goneLocked(0, false)
		return false
	}
	t.ruled = t.state == idle || t.state == held && !t.hold.lost()
	if t.state == sending {
		t.unsureLocked()
	}
	t.becomeLocked(left)
	t.line.doomed = append(t.line.doomed, t)
	// Nobody can gain from an early deletion when the hold goes on to a ticket of this Session: it is sent with
	// the ones after it. In every other case somebody may be waiting for it.
	return t.line.dueLocked(!t.ruled || t.next == nil || t.next.state != waiting)
}

// giveUp leaves after a failure. A put that etcd refused for good is not there: there is nothing to delete, and no
// permission to. Should an earlier attempt of it have arrived unanswered, the sweep finds it.
func (t *ticket) giveUp(err error) {
	s := t.line.s
	s.mu.Lock()
	refused := t.state == sending && !transient(err)
	if refused {
		t.unsureLocked()
		t.goneLocked(0, false)
	}
	s.mu.Unlock()
	if !refused {
		t.leave()
	}
}

// forget drops a ticket that was never put.
func (t *ticket) forget() {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.goneLocked(0, false)
}

// removed says that somebody else removed the ticket, as of revision at.
func (t *ticket) removed(at int64) {
	s := t.line.s
	s.mu.Lock()
	if t.state != waiting && t.state != held && t.state != idle {
		s.mu.Unlock()
		return
	}
	hold := t.hold
	t.goneLocked(at, false)
	t.nudgeLocked()
	s.mu.Unlock()
	if hold != nil {
		s.opts.log.Warn("etcdlock: ticket removed by others, hold lost", "name", t.line.name, "ticket", t.key)
		hold.cancel(ErrLost)
	}
}

// goneLocked forgets the ticket. For a hold on a lease that is over, the lease's context has ended it already.
func (t *ticket) goneLocked(at int64, deleted bool) {
	if t.state == gone {
		return
	}
	t.goneAt, t.deleted, t.next = at, deleted, nil // whoever keeps this one does not keep all that came after
	t.line.goneAt = max(t.line.goneAt, at)
	t.becomeLocked(gone)
	delete(t.lease.tickets, t.key)
	if t.line.of == t.lease {
		t.line.free = append(t.line.free, t.n)
	}
	t.line.refs--
	t.line.settleLocked()
}

// settleLocked forgets the line with its last ticket, unless it is kept for a while to linger again.
func (ln *line) settleLocked() {
	switch {
	case ln.refs > 0:
	case ln.vigil != nil:
		ln.vigil.rest.Reset(ln.s.opts.linger)
	default:
		delete(ln.s.lines, ln.name)
	}
}

// awaitGone waits until the ticket's deletion is confirmed. It ends early when ctx does, when the lease is over (then
// etcd removes the ticket by itself), or when etcd refuses for good; the clean-up goes on in any case.
//
// ErrLost says that the first deletion sent did not find the ticket: somebody else had removed it. When the answer to
// an earlier one was lost, that one may have been it.
func (t *ticket) awaitGone(ctx context.Context) error {
	s := t.line.s
	for {
		s.mu.Lock()
		confirmed, deleted, sent, refused, last := t.state == gone && t.goneAt > 0, t.deleted, t.sent, t.refused, t.line.last
		over := t.state == gone
		changed := t.changedLocked()
		s.mu.Unlock()
		switch {
		case confirmed && (deleted || sent > 1):
			return nil
		case confirmed:
			return ErrLost
		case over || t.lease.ctx.Err() != nil:
			return t.leftBehind(last)
		case refused != nil:
			return refused
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return overErr(ctx, last)
		case <-t.lease.ctx.Done():
		}
	}
}

// leftBehind is the error of a release that etcd had not confirmed when the lease ended.
func (t *ticket) leftBehind(last error) error {
	if cause := context.Cause(t.lease.ctx); cause != nil && !errors.Is(cause, ErrLost) {
		return cause // ErrClosed or ErrClientClosed
	}
	err := errors.New("released, but etcd had not confirmed it when the lease ended")
	if last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return err
}
