package etcdlock_test

import (
	"context"
	"iter"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// What calls do that cannot be meant: each is told what is wrong and what would be right, and nothing has changed.

var contextType = reflect.TypeFor[context.Context]()

// methodsWithContext names every method of v that takes a context, as Type.Method.
func methodsWithContext(v any) (names []string) {
	typ := reflect.TypeOf(v)
	for i := range typ.NumMethod() {
		if m := typ.Method(i); m.Type.NumIn() > 1 && m.Type.In(1) == contextType {
			names = append(names, typ.Elem().Name()+"."+m.Name)
		}
	}
	return names
}

// callsWithContext calls them, with ctx and otherwise zero arguments, and returns their errors by name.
func callsWithContext(v any, ctx context.Context) map[string]error {
	errs := map[string]error{}
	for _, name := range methodsWithContext(v) {
		m := reflect.ValueOf(v).MethodByName(name[strings.IndexByte(name, '.')+1:])
		args := []reflect.Value{reflect.Zero(contextType)}
		if ctx != nil {
			args[0] = reflect.ValueOf(ctx)
		}
		for j := 1; j < m.Type().NumIn(); j++ {
			args = append(args, reflect.Zero(m.Type().In(j)))
		}
		out := m.Call(args)
		switch last := out[len(out)-1].Interface().(type) {
		case iter.Seq2[etcdlock.Leader, error]:
			for _, err := range last {
				errs[name] = err
			}
		case error:
			errs[name] = last
		default:
			errs[name] = nil
		}
	}
	return errs
}

func TestANilContextChangesNothing(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	m, e, rw := etcdlock.NewMutex(s, "misused"), etcdlock.NewElection(s, "misused/e"), etcdlock.NewRWMutex(s, "misused/rw")
	check := func(v any) {
		t.Helper()
		errs := callsWithContext(v, nil)
		require.GreaterOrEqual(t, len(errs), 2)
		for name, err := range errs {
			assert.ErrorContains(t, err, "nil context", name)
		}
	}
	check(m)
	check(e)
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, e.Campaign(soon(t), "v"))
	h, err := rw.RLock(soon(t))
	require.NoError(t, err)
	check(m)
	check(e)
	check(rw)
	check(h)
	require.NoError(t, h.Verify(soon(t)), "still held")
	require.NoError(t, h.Release(soon(t)))
	require.NoError(t, m.Verify(soon(t)))
	require.NoError(t, e.Verify(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, e.Resign(soon(t)))
	var none context.Context
	_, err = etcdlock.NewSession(none, client)
	require.ErrorContains(t, err, "nil context")
	require.ErrorContains(t, s.Shutdown(none), "nil context")
	require.NoError(t, m.Lock(soon(t)), "the Session goes on")
}

func TestAValueWithoutASessionSaysSo(t *testing.T) {
	for what, values := range map[string][]any{
		"zero":        {new(etcdlock.Mutex), new(etcdlock.Election), new(etcdlock.RWMutex)},
		"nil session": {etcdlock.NewMutex(nil, "a"), etcdlock.NewElection(nil, "a"), etcdlock.NewRWMutex(nil, "a")},
	} {
		for _, v := range values {
			for name, err := range callsWithContext(v, t.Context()) {
				assert.ErrorContains(t, err, "no Session", "%s: %s", what, name)
			}
			held := v.(interface {
				Context() context.Context
				Token() int64
				Key() string
				IsOwner() clientv3.Cmp
			})
			assert.ErrorIs(t, held.Context().Err(), context.Canceled)
			assert.Zero(t, held.Token())
			assert.Empty(t, held.Key())
			assert.NotEqual(t, clientv3.Cmp{}, held.IsOwner(), "the empty one is always true")
		}
	}
	require.Panics(t, func() { new(etcdlock.Mutex).Locker().Lock() })
}

func TestAFunctionThatIsMissingIsToldBeforeTheLockIsTaken(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	require.ErrorContains(t, etcdlock.NewMutex(s, "missing").Do(soon(t), nil), "nil function")
	require.ErrorContains(t, etcdlock.NewMutex(s, "missing").TryDo(soon(t), nil), "nil function")
	require.ErrorContains(t, etcdlock.NewRWMutex(s, "missing").RDo(soon(t), nil), "nil function")
	require.ErrorContains(t, etcdlock.NewRWMutex(s, "missing").TryRDo(soon(t), nil), "nil function")
	require.ErrorContains(t, etcdlock.NewElection(s, "missing").Run(soon(t), "v", nil), "nil function")
	resp, err := client.Get(soon(t), "missing")
	require.NoError(t, err)
	require.EqualValues(t, 1, resp.Header.Revision, "nothing was written")
}

func TestALockThatWaitsForItsOwnValueSaysSo(t *testing.T) {
	client := newClient(t)
	var log diary
	s := newSession(t, client, etcdlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	m := etcdlock.NewMutex(s, "own")
	require.NoError(t, m.Lock(soon(t)))
	says := func(words string) {
		t.Helper()
		for _, err := range []error{m.TryLock(soon(t)), m.Lock(within(t, 300*time.Millisecond))} {
			require.ErrorIs(t, err, etcdlock.ErrLocked)
			require.ErrorContains(t, err, words)
			require.NotContains(t, err.Error(), "locked by")
		}
	}
	says("held by this Mutex value itself")
	held := m.Context()
	_, err := client.Revoke(soon(t), s.Lease())
	require.NoError(t, err)
	<-held.Done()
	says("was lost and awaits its Unlock")
	require.Equal(t, 1, strings.Count(log.String(), "Lock waits, because the last hold"), log.String())
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrLost)
	require.Equal(t, `etcdlock: "a": locked by another`, (&etcdlock.LockedError{Name: "a"}).Error(), "no empty ticket")
}

func TestAHoldThatNobodyHasTakenHoldsNothing(t *testing.T) {
	var none *etcdlock.Hold
	for what, h := range map[string]*etcdlock.Hold{"nil": none, "zero": new(etcdlock.Hold)} {
		for name, err := range callsWithContext(h, t.Context()) {
			require.ErrorIs(t, err, etcdlock.ErrNotHeld, "%s %s", what, name)
			require.ErrorContains(t, err, "RLock", "%s %s: what would be right", what, name)
		}
		require.ErrorIs(t, context.Cause(h.Context()), etcdlock.ErrNotHeld, what)
		require.Zero(t, h.Token(), what)
		require.Empty(t, h.Key(), what)
		require.Len(t, h.IsOwner(), 1, what)
	}
}
