package etcdlockotel

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

func attributes(span tracetest.SpanStub) map[string]any {
	m := map[string]any{}
	for _, a := range span.Attributes {
		m[string(a.Key)] = a.Value.AsInterface()
	}
	return m
}

// On a real etcd: what the calls themselves tell is what their spans tell.
func TestEveryWaitIsASpanOfItsCaller(t *testing.T) {
	etcd, err := embedded.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, etcd.Close()) })
	client, err := embedded.Dial(etcd.Endpoints()...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })

	exported := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(exported))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(Hooks(provider)))
	require.NoError(t, err)

	began := time.Now()
	ctx, parent := provider.Tracer("test").Start(ctx, "parent")
	m, e := etcdlock.NewMutex(s, "a"), etcdlock.NewElection(s, "e")
	require.NoError(t, m.Lock(ctx))
	token, key := m.Token(), m.Key()
	held := time.Now()
	require.ErrorIs(t, etcdlock.NewMutex(s, "a").TryLock(ctx), etcdlock.ErrLocked)
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	late := etcdlock.NewMutex(s, "a").Lock(short)
	require.ErrorIs(t, late, context.DeadlineExceeded)
	require.NoError(t, e.Campaign(context.Background(), "x"))
	parent.End()
	require.NoError(t, s.Close()) // all is told

	spans := exported.GetSpans()
	require.Len(t, spans, 5)
	find := func(name string, want map[string]any) tracetest.SpanStub {
		t.Helper()
		for _, span := range spans {
			got := attributes(span)
			if span.Name == name && got["etcdlock.outcome"] == want["etcdlock.outcome"] {
				require.Equal(t, want, got)
				return span
			}
		}
		t.Fatalf("no span %s %v in %v", name, want, spans)
		return tracetest.SpanStub{}
	}
	lock := find("etcdlock acquire mutex", map[string]any{
		"etcdlock.kind": "mutex", "etcdlock.name": "a", "etcdlock.try": false, "etcdlock.outcome": "held",
		"etcdlock.token": token, "etcdlock.key": key, "etcdlock.in_memory": false,
	})
	require.Equal(t, parent.SpanContext().SpanID(), lock.Parent.SpanID())
	require.Equal(t, parent.SpanContext().TraceID(), lock.SpanContext.TraceID())
	require.Equal(t, codes.Unset, lock.Status.Code)
	require.False(t, lock.StartTime.Before(began))
	require.False(t, lock.EndTime.After(held), "the wait, not the hold")
	require.True(t, lock.EndTime.After(lock.StartTime))

	try := find("etcdlock acquire mutex", map[string]any{
		"etcdlock.kind": "mutex", "etcdlock.name": "a", "etcdlock.try": true, "etcdlock.outcome": "busy",
	})
	require.Equal(t, codes.Unset, try.Status.Code)
	require.Empty(t, try.Events)

	canceled := find("etcdlock acquire mutex", map[string]any{
		"etcdlock.kind": "mutex", "etcdlock.name": "a", "etcdlock.try": false, "etcdlock.outcome": "canceled",
	})
	require.Equal(t, codes.Error, canceled.Status.Code)
	require.Contains(t, canceled.Status.Description, "deadline exceeded")
	require.Len(t, canceled.Events, 1)
	require.GreaterOrEqual(t, canceled.EndTime.Sub(canceled.StartTime), 49*time.Millisecond)

	lead := find("etcdlock acquire election", map[string]any{
		"etcdlock.kind": "election", "etcdlock.name": "e", "etcdlock.try": false, "etcdlock.outcome": "held",
		"etcdlock.token": e.Token(), "etcdlock.key": e.Key(), "etcdlock.in_memory": false,
	})
	require.False(t, lead.Parent.IsValid(), "it was called without a span")
}

// Who makes spans needs the API alone; which SDK takes them is the program's choice.
func TestOnlyTheAPIIsBehindTheImport(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for pkg := range strings.Lines(string(out)) {
		require.NotContains(t, pkg, "go.opentelemetry.io/otel/sdk")
		require.NotContains(t, pkg, "/exporters/")
	}
}
