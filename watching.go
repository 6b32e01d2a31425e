package etcdlock

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/task"
)

// eventsKept is how many events may wait for a hook that blocks; what comes after them is dropped. It is more than a log
// keeps: the loss of a lease ends all holds at once, which may be a hundred thousand, and each is to be counted.
const eventsKept = 1 << 17

// watching calls the hooks of a Session. A nil one calls none.
type watching struct {
	hooks  Hooks
	events *task.InOrder
}

var _ queue.Observer = (*watching)(nil)

// newWatching returns nil if there is no hook.
func newWatching(hooks []Hooks) *watching {
	if len(hooks) == 0 {
		return nil
	}
	w := &watching{events: task.NewInOrder(eventsKept)}
	for _, h := range hooks {
		w.hooks = Hooks{
			Opened:        both(w.hooks.Opened, h.Opened),
			WaitBegun:     both2(w.hooks.WaitBegun, h.WaitBegun),
			WaitEnded:     both2(w.hooks.WaitEnded, h.WaitEnded),
			HoldEnded:     both(w.hooks.HoldEnded, h.HoldEnded),
			Renewed:       both(w.hooks.Renewed, h.Renewed),
			LeaseReplaced: both(w.hooks.LeaseReplaced, h.LeaseReplaced),
			Overrun:       both(w.hooks.Overrun, h.Overrun),
		}
	}
	return w
}

// both calls one after the other, where there are two.
func both[T any](f, g func(T)) func(T) {
	switch {
	case f == nil:
		return g
	case g == nil:
		return f
	}
	return func(v T) { f(v); g(v) }
}

func both2[T any](f, g func(context.Context, T)) func(context.Context, T) {
	switch {
	case f == nil:
		return g
	case g == nil:
		return f
	}
	return func(ctx context.Context, v T) { f(ctx, v); g(ctx, v) }
}

// observer is what the queue is given: no interface around nil.
func (w *watching) observer() queue.Observer {
	if w == nil {
		return nil
	}
	return w
}

// end is the end of the Session: no hook is called after it, but one that blocks, and those of calls that come later.
func (w *watching) end() {
	if w != nil {
		w.events.Drain(lastWords)
	}
}

// dropped is how many events no hook was told of.
func (w *watching) dropped() uint64 {
	if w == nil {
		return 0
	}
	return w.events.Dropped()
}

// opened tells of the Session.
func (w *watching) opened(s *Session) {
	if w != nil && w.hooks.Opened != nil {
		w.hooks.Opened(s)
	}
}

// WaitBegun implements queue.Observer.
func (w *watching) WaitBegun(ctx context.Context, q queue.Wait) {
	if f := w.hooks.WaitBegun; f != nil {
		ctx := context.WithoutCancel(ctx)
		w.events.Put(func() { f(ctx, wait(q)) })
	}
}

// WaitEnded implements queue.Observer.
func (w *watching) WaitEnded(ctx context.Context, q queue.WaitEnd) {
	f := w.hooks.WaitEnded
	if f == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	waited := time.Since(q.Began)
	w.events.Put(func() {
		e := WaitEnd{Wait: wait(q.Wait), Waited: waited, Outcome: outcomes[q.Outcome], InMemory: q.Memory, Err: q.Err}
		if q.Ticket != nil {
			e.Token, e.Key, e.Names = q.Ticket.Token(), q.Ticket.Key(), q.Ticket.Names()
		}
		if by := q.By; by != nil {
			locked := &LockedError{Name: q.In, Holder: by.Value, Token: by.Rev, Key: by.Key, Class: by.Class()}
			if e.Err == nil {
				e.Err = locked
			} else {
				e.Err = fmt.Errorf("%w: %w", e.Err, locked)
			}
		}
		f(ctx, e)
	})
}

// HoldEnded implements queue.Observer. It is called under a mutex, so no hook is called here: after the end of the Session
// no hold is left to end.
func (w *watching) HoldEnded(q queue.HoldEnd) {
	f := w.hooks.HoldEnded
	if f == nil {
		return
	}
	ended := func() {
		t, e := q.Ticket, endings[q.Ending]
		f(HoldEnd{
			Kind: t.Kind().Name, Name: t.Name(), Token: t.Token(), Key: t.Key(), Held: q.Held, Ending: e.Ending, Cause: e.Cause,
		})
	}
	w.events.Put(ended)
}

// Overran implements queue.Observer. It is called under a mutex while the function runs.
func (w *watching) Overran(q queue.Overrun) {
	f := w.hooks.Overrun
	if f == nil {
		return
	}
	w.events.Put(func() { f(overrun(q)) })
}

// renewed tells of a renewal of l, or of an attempt that failed.
func (w *watching) renewed(l *queue.Lease, took time.Duration, err error) {
	if w != nil && w.hooks.Renewed != nil {
		r := Renewal{Lease: l.ID, Took: took, Left: l.Left(), Err: err}
		w.events.Put(func() { w.hooks.Renewed(r) })
	}
}

// replaced tells of the next lease.
func (w *watching) replaced(old, next *queue.Lease) {
	if w != nil && w.hooks.LeaseReplaced != nil {
		at, _ := old.Ended()
		r := LeaseReplacement{Old: old.ID, New: next.ID, Cause: lossOf(old), Without: lease.Now().Sub(at)}
		w.events.Put(func() { w.hooks.LeaseReplaced(r) })
	}
}

// lossOf is why a lease was lost.
func lossOf(l *queue.Lease) LossCause {
	if _, byEtcd := l.Ended(); byEtcd {
		return LostByRevoke
	}
	return LostByDeadline
}

func wait(q queue.Wait) Wait {
	return Wait{Kind: q.Kind.Name, Name: q.Name, Try: q.Try, Began: q.Began}
}

func overrun(q queue.Overrun) Overrun {
	t := q.Ticket
	return Overrun{Kind: t.Kind().Name, Name: t.Name(), Token: t.Token(), For: q.For, Returned: q.Returned}
}

// The engine's words in the words of hooks.
var (
	outcomes = [...]Outcome{
		queue.Got: OutcomeHeld, queue.Busy: OutcomeBusy, queue.Canceled: OutcomeCanceled, queue.Closed: OutcomeClosed,
		queue.Failed: OutcomeFailed,
	}
	endings = [...]struct {
		Ending
		Cause LossCause
	}{
		queue.Released: {EndingReleased, ""}, queue.SessionEnded: {EndingClosed, ""}, queue.Deadline: {EndingLost, LostByDeadline},
		queue.Revoked: {EndingLost, LostByRevoke}, queue.Removal: {EndingLost, LostByRemoval},
	}
)
