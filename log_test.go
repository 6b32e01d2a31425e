package etcdlock

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// stuckLog is a handler that never returns from a line of some level, until it is let go.
type stuckLog struct {
	slog.Handler
	at  slog.Level
	let chan struct{}
}

func (h stuckLog) Enabled(context.Context, slog.Level) bool { return true }
func (h stuckLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level == h.at {
		<-h.let
	}
	return nil
}

func TestTimeALogThatBlocksKeepsNoHoldAlive(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		let := make(chan struct{})
		defer close(let)
		s := e.session(t, WithLogger(slog.New(stuckLog{slog.DiscardHandler, slog.LevelWarn, let})))
		m := locked(t, s)
		e.remove(m.Key())
		until(time.Now().Add(6 * time.Second))
		require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
	})
}

func TestTimeALogThatBlocksKeepsTheNextLeaseFromNobody(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelWarn, slog.LevelInfo} {
		t.Run(level.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				let := make(chan struct{})
				defer close(let)
				s := e.session(t, WithLogger(slog.New(stuckLog{slog.DiscardHandler, level, let})))
				e.Expire(int64(s.Lease()))
				until(time.Now().Add(30 * time.Second))
				m := NewMutex(s, "/time/lock")
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.NoError(t, m.Lock(ctx))
				until(time.Now().Add(30 * time.Second))
				require.NoError(t, m.Context().Err(), "the next lease is renewed")
			})
		})
	}
}

func TestTimeTheWarningOfALostLeaseSaysWhyAndWhatWasHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var log bytes.Buffer
		s := e.session(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		for i := range 41 {
			lockedAs(t, s, fmt.Sprintf("/log/%02d", i))
		}
		lockedAs(t, s, "/long/"+strings.Repeat("n", 10_000))
		released := lockedAs(t, s, "/log/00/released")
		require.NoError(t, released.Unlock(t.Context()))
		e.bends(func(string) fault { return fault{err: errAway} })
		until(time.Now().Add(s.TTL()))
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"))
		for _, word := range []string{
			`held="[/log/00 /log/01 /log/02 /log/03 /log/04]" "and more"=37`, "last renewed", "connection refused",
		} {
			require.Contains(t, log.String(), word)
		}
		require.Less(t, log.Len(), 1000)
	})
}

// closingLog is a handler that closes its Session at the first warning, as one might do that ends the process.
type closingLog struct {
	slog.Handler
	s      func() *Session
	closed chan time.Duration
}

func (h closingLog) Enabled(context.Context, slog.Level) bool { return true }
func (h closingLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		begin := time.Now()
		_ = h.s().Close()
		h.closed <- time.Since(begin)
	}
	return nil
}

func TestTimeALogMayCloseItsSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		opened, closed := make(chan *Session, 1), make(chan time.Duration, 1)
		s := e.session(t, WithLogger(slog.New(closingLog{slog.DiscardHandler, func() *Session { return <-opened }, closed})))
		opened <- s
		e.Expire(int64(s.Lease()))
		select {
		case took := <-closed:
			require.LessOrEqual(t, took, lastWords)
		case <-time.After(time.Hour):
			require.Fail(t, "Close waits for the log, and the log for Close")
		}
	})
}

// allStuck blocks at every line.
type allStuck struct {
	slog.Handler
	let chan struct{}
}

func (h allStuck) Enabled(context.Context, slog.Level) bool  { return true }
func (h allStuck) Handle(context.Context, slog.Record) error { <-h.let; return nil }

func TestTimeALogThatBlocksHoldsUpNoCall(t *testing.T) {
	for call, f := range map[string]func(ctx context.Context, e *etcd, client *clientv3.Client, s *Session){
		"Lock of a value whose hold was lost": func(ctx context.Context, e *etcd, _ *clientv3.Client, s *Session) {
			m := NewMutex(s, "a")
			_ = m.Lock(ctx)
			e.Revoke(int64(s.Lease()))
			<-m.Context().Done()
			_ = m.Lock(ctx)
		},
		"Run whose lead was lost": func(ctx context.Context, e *etcd, _ *clientv3.Client, s *Session) {
			_ = NewElection(s, "a").Run(ctx, "x", func(ctx context.Context) error {
				e.Revoke(int64(s.Lease()))
				<-ctx.Done()
				return nil
			})
		},
		"Lock of a Locker that is refused": func(_ context.Context, e *etcd, _ *clientv3.Client, s *Session) {
			e.only("write", fault{err: errDenied})
			time.AfterFunc(10*time.Second, func() { e.bends(nil) })
			NewMutex(s, "a").Locker().Lock()
		},
		"NewSession without etcd": func(ctx context.Context, e *etcd, client *clientv3.Client, s *Session) {
			e.away()
			_, _ = NewSession(ctx, client, WithLogger(s.opts.log))
		},
	} {
		t.Run(call, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				let := make(chan struct{})
				client := e.client(t)
				s, err := NewSession(t.Context(), client, WithLogger(slog.New(allStuck{slog.DiscardHandler, let})))
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began, returned := time.Now(), make(chan struct{})
				go func() { defer close(returned); f(ctx, e, client, s) }()
				select {
				case <-returned:
				case <-time.After(time.Hour):
				}
				took := time.Since(began)
				e.bends(nil)
				close(let)
				<-returned
				_ = s.Close()
				require.LessOrEqual(t, took, time.Minute+lastWords)
			})
		})
	}
}

func TestTimeWhatIsToBeSaidAfterTheEndOfTheSessionIsSaid(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var log bytes.Buffer
		s := e.session(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		l := NewMutex(s, "a").Locker()
		l.Lock()
		require.NoError(t, s.Close())
		l.Unlock()
		synctest.Wait()
		require.Contains(t, log.String(), "session closed")
	})
}
