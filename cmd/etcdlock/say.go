package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// This file writes etcdlock's own words, all of them to stderr. Nothing that ends a command in time may wait for whoever
// reads them, so one goroutine writes what others hand to it.

const (
	linesKept = 64          // lines that may wait for a reader; what comes after them is dropped
	lastWords = time.Second // how long the end of the program waits for its lines to be written
)

type sayer struct {
	lines chan string
	over  chan struct{} // closed by flush; lines is not, since somebody may say something still
	done  chan struct{}
}

func newSayer(w io.Writer) *sayer {
	s := &sayer{lines: make(chan string, linesKept), over: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for {
			select {
			case l := <-s.lines:
				_, _ = io.WriteString(w, l+"\n")
			case <-s.over:
				if len(s.lines) == 0 {
					return
				}
			}
		}
	}()
	return s
}

// line says one line, without waiting for anybody.
func (s *sayer) line(text string) {
	select {
	case s.lines <- text:
	default:
	}
}

// Write makes the sayer a writer of whole lines, for slog's handlers.
func (s *sayer) Write(p []byte) (int, error) {
	s.line(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// flush writes what was said before, and ends the sayer. What is said later is dropped.
func (s *sayer) flush() {
	close(s.over)
	select {
	case <-s.done:
	case <-time.After(lastWords):
	}
}

// logger returns where the lines of a run go, by -v, -q and --log-format.
func (a *app) logger() *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.quiet:
		level = slog.LevelError
	case a.verbose > 1:
		level = slog.LevelDebug
	case a.verbose == 1:
		level = slog.LevelInfo
	}
	if a.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.say, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(&plain{say: a.say, level: level})
}

// plain is a log handler for people: "etcdlock: message (key=value, key=value)".
type plain struct {
	say   *sayer
	level slog.Level
	attrs string
}

func (p *plain) Enabled(_ context.Context, level slog.Level) bool { return level >= p.level }

func (p *plain) Handle(_ context.Context, r slog.Record) error {
	attrs := p.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs = join(attrs, a)
		return true
	})
	text := "etcdlock: " + strings.TrimPrefix(r.Message, "etcdlock: ")
	if attrs != "" {
		text += " (" + attrs + ")"
	}
	p.say.line(strings.Join(strings.Fields(text), " "))
	return nil
}

func (p *plain) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *p
	for _, a := range attrs {
		with.attrs = join(with.attrs, a)
	}
	return &with
}

// WithGroup: nothing here groups.
func (p *plain) WithGroup(string) slog.Handler { return p }

func join(attrs string, a slog.Attr) string {
	if attrs != "" {
		attrs += ", "
	}
	value := a.Value.Resolve().Any()
	if s, ok := value.(string); ok {
		return attrs + fmt.Sprintf("%s=%q", a.Key, s)
	}
	return attrs + fmt.Sprintf("%s=%v", a.Key, value)
}
