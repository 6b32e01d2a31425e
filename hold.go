package etcdlock

import (
	"context"
	"errors"
)

// holdContext is over when the hold is. It asks the clock before it answers, because the timer of a process that was
// stopped runs late: whoever asks it right after waking gets the truth. Contexts derived from it learn by the timer.
//
// The answer comes from an ordinary cancellable context inside, which is cancelled first: so Done is closed whenever
// Err is not nil, and children need no goroutine.
type holdContext struct {
	context.Context // inner
	cancel          context.CancelCauseFunc
	lease           *life
	hold            *holdContext // for a context of work done under a hold, that hold; else nil
}

// newHold returns the context of a hold under l.
func newHold(l *lease) *holdContext {
	inner, cancel := context.WithCancelCause(l.ctx)
	return &holdContext{Context: inner, cancel: cancel, lease: &l.life}
}

// newWork returns what Do and Run give to their function: the caller's values, deadline and cancellation, and the
// end of the hold. The caller ends it with stop.
func newWork(ctx context.Context, hold *holdContext) (work *holdContext, stop func()) {
	inner, cancel := context.WithCancelCause(ctx)
	work = &holdContext{Context: inner, cancel: cancel, lease: hold.lease, hold: hold}
	unhook := context.AfterFunc(hold, work.ask)
	return work, func() { unhook(); cancel(context.Canceled) }
}

// ask passes on an end that the clock knows of and the timer does not yet. No mutex is held while it cancels.
func (c *holdContext) ask() {
	if c.hold == nil {
		c.lease.alive()
	} else if c.hold.Err() != nil {
		c.cancel(context.Cause(c.hold))
	}
}

func (c *holdContext) Done() <-chan struct{} { c.ask(); return c.Context.Done() }

func (c *holdContext) Err() error { c.ask(); return c.Context.Err() }

// Value asks too: context.Cause finds the inner context through it.
func (c *holdContext) Value(key any) any { c.ask(); return c.Context.Value(key) }

// lost reports whether the hold ended otherwise than by its release, without asking the clock.
func (c *holdContext) lost() bool {
	cause := context.Cause(c.Context)
	return cause != nil && !errors.Is(cause, ErrNotHeld)
}

// endedContext is the context of a value that holds nothing.
func endedContext(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}
