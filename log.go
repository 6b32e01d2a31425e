package etcdlock

import (
	"context"
	"log/slog"
	"time"

	"github.com/etcdlock/etcdlock/internal/task"
)

// linesKept is how many lines may wait for a log that blocks; what comes after them is dropped.
const linesKept = 64

// lastWords is how long the end of a Session waits for the log to take the last lines, and for hooks. They may block for
// ever, and one of them may be what calls Close.
const lastWords = time.Second

// beside is a log handler that keeps nobody waiting: neither what renews, checks and ends holds must hang on the caller's log,
// nor calls that return with their context. One goroutine hands on the lines, in order.
type beside struct {
	slog.Handler
	lines *task.InOrder
}

// logBeside returns log for a Session, and the lines that wait for it.
func logBeside(log *slog.Logger) (*slog.Logger, *task.InOrder) {
	lines := task.NewInOrder(linesKept)
	return slog.New(beside{log.Handler(), lines}), lines
}

// Handle takes one line; see slog.Handler.
func (b beside) Handle(ctx context.Context, r slog.Record) error {
	ctx, r = context.WithoutCancel(ctx), r.Clone()
	b.lines.Put(func() { _ = b.Handler.Handle(ctx, r) })
	return nil
}

// WithAttrs and WithGroup keep the lines of one Session in order; see slog.Handler.
func (b beside) WithAttrs(attrs []slog.Attr) slog.Handler {
	return beside{b.Handler.WithAttrs(attrs), b.lines}
}

// WithGroup is as WithAttrs.
func (b beside) WithGroup(name string) slog.Handler {
	return beside{b.Handler.WithGroup(name), b.lines}
}
