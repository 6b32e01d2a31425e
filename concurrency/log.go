package concurrency

import (
	"context"
	"log/slog"

	v3 "go.etcd.io/etcd/client/v3"
)

// logger hands on to the client's own log what the library tells at Warn and above.
func logger(client *v3.Client) *slog.Logger { return slog.New(handler{to: client.GetLogger().Sugar()}) }

type handler struct {
	to interface {
		Warnw(msg string, keysAndValues ...any)
		Errorw(msg string, keysAndValues ...any)
	}
	attrs []any
}

// Enabled is for slog.
func (h handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle is for slog.
func (h handler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a.Key, a.Value.Any())
		return true
	})
	if r.Level >= slog.LevelError {
		h.to.Errorw(r.Message, attrs...)
	} else {
		h.to.Warnw(r.Message, attrs...)
	}
	return nil
}

// WithAttrs is for slog.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		h.attrs = append(h.attrs, a.Key, a.Value.Any())
	}
	return h
}

// WithGroup is for slog; the library has no groups.
func (h handler) WithGroup(string) slog.Handler { return h }
