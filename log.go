package etcdlock

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// linesKept is how many lines may wait for a log that blocks; what comes after them is dropped.
const linesKept = 64

// lastLines is how long the end of a Session waits for a log to take the last lines. A log may block for ever, and it may
// be the one that calls Close.
const lastLines = time.Second

// beside is a log handler that keeps nobody waiting: what renews, checks and ends holds must not hang on the caller's log.
// One goroutine hands on the lines, in order.
type beside struct {
	slog.Handler
	*lines
}

type lines struct {
	mu      sync.Mutex // guards what follows; a leaf, and nothing is logged under it
	waiting []func()
	running bool
	over    bool          // the Session is closed: nobody wants to know any more
	idle    chan struct{} // closed when no line is left, made when somebody waits for that
}

// logBeside returns log for what runs in the background of a Session, and the lines that wait for it.
func logBeside(log *slog.Logger) (*slog.Logger, *lines) {
	l := new(lines)
	return slog.New(beside{log.Handler(), l}), l
}

// Handle takes one line; see slog.Handler.
func (b beside) Handle(ctx context.Context, r slog.Record) error {
	ctx, r = context.WithoutCancel(ctx), r.Clone()
	b.put(func() { _ = b.Handler.Handle(ctx, r) })
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

func (l *lines) put(line func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || len(l.waiting) == linesKept {
		return
	}
	l.waiting = append(l.waiting, line)
	if !l.running {
		l.running = true
		go l.write() // ends with the last line, which end awaits for a while
	}
}

func (l *lines) write() {
	for {
		l.mu.Lock()
		if len(l.waiting) == 0 {
			l.running = false
			if l.idle != nil {
				close(l.idle)
			}
			l.mu.Unlock()
			return
		}
		line := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.mu.Unlock()
		line()
	}
}

// end takes no more lines, and gives the log a moment for those that wait. It is called once.
func (l *lines) end() {
	l.mu.Lock()
	l.over = true
	if !l.running {
		l.mu.Unlock()
		return
	}
	l.idle = make(chan struct{})
	idle := l.idle
	l.mu.Unlock()
	timer := time.NewTimer(lastLines)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
