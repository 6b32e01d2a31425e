// Package etcdlockotel has OpenTelemetry spans for the Sessions of github.com/etcdlock/etcdlock:
//
//	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(etcdlockotel.Hooks(otel.GetTracerProvider())))
//
// Each call that wants to hold, Lock, TryLock, Do, Campaign, Run and their like, has one span: around its wait, a child of
// the span in its context. There is none around the hold: a leader may lead for months, and a span is only seen when it has
// ended. What is done under the hold finds the token of the hold among the attributes of the wait.
//
// The span is named "etcdlock acquire" with the kind, such as "etcdlock acquire mutex". Its attributes:
//
//	etcdlock.kind       what is wanted: mutex, reader, permit, lockall, election
//	etcdlock.name       the name of the lock
//	etcdlock.try        whether it is taken only if it is free
//	etcdlock.outcome    held, busy, canceled, closed or failed
//	etcdlock.token      of the hold: its fencing token
//	etcdlock.key        of the hold: its ticket in etcd
//	etcdlock.in_memory  of the hold: whether it came from another of the Session, before etcd had confirmed its release
//
// A wait that failed has the error and the status Error; so has one that the end of its context or of the Session cut short.
// One that found the lock busy has not. Spans are made when the wait has ended, with its times: the requests to etcd that a
// traced client makes meanwhile are children of the same parent, not of this span.
package etcdlockotel

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/etcdlock/etcdlock"
)

// scope names this package as the maker of spans.
const scope = "github.com/etcdlock/etcdlock/otel"

// Hooks returns what makes a Session tell its waits to a tracer of provider, which may not be nil.
func Hooks(provider trace.TracerProvider) etcdlock.Hooks {
	tracer := provider.Tracer(scope)
	return etcdlock.Hooks{WaitEnded: func(ctx context.Context, w etcdlock.WaitEnd) {
		_, span := tracer.Start(ctx, "etcdlock acquire "+w.Kind, trace.WithTimestamp(w.Began), trace.WithSpanKind(trace.SpanKindInternal),
			trace.WithAttributes(
				attribute.String("etcdlock.kind", w.Kind),
				attribute.String("etcdlock.name", w.Name),
				attribute.Bool("etcdlock.try", w.Try),
				attribute.String("etcdlock.outcome", string(w.Outcome)),
			))
		ended := trace.WithTimestamp(w.Began.Add(w.Waited))
		defer span.End(ended)
		switch w.Outcome {
		case etcdlock.OutcomeHeld:
			span.SetAttributes(
				attribute.Int64("etcdlock.token", w.Token),
				attribute.String("etcdlock.key", w.Key),
				attribute.Bool("etcdlock.in_memory", w.InMemory),
			)
		case etcdlock.OutcomeBusy:
		default:
			span.RecordError(w.Err, ended)
			span.SetStatus(codes.Error, w.Err.Error())
		}
	}}
}
