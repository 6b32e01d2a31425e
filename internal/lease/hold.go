package lease

import (
	"context"
)

// Hold is the context of a hold under a lease: over when the hold is. It asks the clock before it answers, because the
// timer of a process that was stopped runs late: whoever asks it right after waking gets the truth. Contexts derived from
// it learn by the timer.
//
// The answer comes from an ordinary cancellable context inside, which is cancelled first: so Done is closed whenever
// Err is not nil, and children need no goroutine.
type Hold struct {
	context.Context // inner
	cancel          context.CancelCauseFunc
	lease           *Lease
	released        error // the cause of a release
}

// NewHold returns the context of a hold under l. After its release the cause is released.
func NewHold(l *Lease, released error) *Hold {
	inner, cancel := context.WithCancelCause(l.ctx)
	return &Hold{Context: inner, cancel: cancel, lease: l, released: released}
}

// Lease is the lease that the hold is under.
func (h *Hold) Lease() *Lease { return h.lease }

// Release ends the hold because its holder gives it back. It returns why the hold had ended before, nil if it lasted.
func (h *Hold) Release() (lost error) {
	if h.Err() != nil {
		lost = context.Cause(h.Context) // the inner one: the clock has been asked
	}
	h.cancel(h.released)
	return lost
}

// Lose ends the hold because it is lost.
func (h *Hold) Lose() { h.cancel(ErrLost) }

// Lost reports whether the hold ended otherwise than by its release, without asking the clock.
func (h *Hold) Lost() bool {
	cause := context.Cause(h.Context)
	return cause != nil && cause != h.released //nolint:errorlint // the very same
}

// Done asks the clock; see context.Context.
func (h *Hold) Done() <-chan struct{} { h.lease.Alive(); return h.Context.Done() }

// Err asks the clock; see context.Context.
func (h *Hold) Err() error { h.lease.Alive(); return h.Context.Err() }

// Value asks too: context.Cause finds the inner context through it.
func (h *Hold) Value(key any) any { h.lease.Alive(); return h.Context.Value(key) }

// work is a context for work done under a hold. It asks the hold, as that asks the clock.
type work struct {
	context.Context // inner
	cancel          context.CancelCauseFunc
	hold            *Hold
}

// NewWork returns a context for work done under h: it has the values, the deadline and the cancellation of ctx, and the
// end of the hold. The caller ends it with stop.
func NewWork(ctx context.Context, h *Hold) (_ context.Context, stop func()) {
	inner, cancel := context.WithCancelCause(ctx)
	w := &work{inner, cancel, h}
	unhook := context.AfterFunc(h, w.ask)
	return w, func() { unhook(); cancel(context.Canceled) }
}

// ask passes on an end that the clock knows of and the timer does not yet.
func (w *work) ask() {
	if w.hold.Err() != nil {
		w.cancel(context.Cause(w.hold))
	}
}

func (w *work) Done() <-chan struct{} { w.ask(); return w.Context.Done() }

func (w *work) Err() error { w.ask(); return w.Context.Err() }

func (w *work) Value(key any) any { w.ask(); return w.Context.Value(key) }

// OfLease returns a context that is over when the lease is, and asks the clock as a hold does.
func OfLease(l *Lease) context.Context { return &Hold{Context: l.ctx, lease: l} }

// Ended is the context of a value that holds nothing.
func Ended(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}
