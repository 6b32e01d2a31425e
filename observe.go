package etcdlock

import (
	"context"
	"fmt"
	"iter"
)

// backlog is how many states a reader may be behind before the oldest of them are dropped.
const backlog = 64

// Observe yields who leads: the state at the moment, and every later one in order, the zero Leader for nobody. A reader
// that keeps up gets every state; one that falls behind by more than 64 gets the newest and holds up nobody. It never
// goes backwards within one history of the cluster: a state is never older than the one before.
//
// Watch errors, compaction, the loss of members and a restored store are mended inside. It ends when the caller breaks,
// and otherwise with one last pair that carries why: ctx.Err(), ErrClosed when the Session closes, ErrClientClosed, ErrInvalidName, or
// a refusal of etcd's that no retry can mend.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		fail := func(err error) { yield(Leader{}, fmt.Errorf("etcdlock: observe %q: %w", e.name, err)) }
		if err := e.begin(ctx, "observe"); err != nil {
			yield(Leader{}, err)
			return
		}
		octx, cancel := context.WithCancelCause(ctx)
		defer context.AfterFunc(e.s.closing, func() { cancel(e.s.over()) })()
		o := &observer{s: e.s, line: newLine(e.s, e.name), news: make(chan struct{}, 1)}
		// The goroutine that follows etcd belongs to this call, which waits for it before it returns.
		done := make(chan error, 1)
		go func() { done <- o.follow(octx) }()
		stopped := false
		defer func() {
			cancel(nil)
			if !stopped {
				<-done // told already, or the caller broke off
			}
		}()
		for {
			select {
			case <-o.news:
			case err := <-done:
				stopped = true
				for _, l := range o.take() {
					if !yield(l, nil) {
						return
					}
				}
				switch {
				case ctx.Err() != nil:
					err = ctx.Err()
				case e.s.closing.Err() != nil:
					err = e.s.over()
				}
				fail(err)
				return
			}
			for _, l := range o.take() {
				if !yield(l, nil) {
					return
				}
			}
		}
	}
}
