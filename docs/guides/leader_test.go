package guides_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

// untilTold runs serve until the process is told to stop.
func untilTold(serve func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop() // a second signal ends the process at once
	return serve(ctx)
}

// serve is one process of the fleet: it stands by, leads when its turn comes, and stops in good order when ctx ends.
func serve(ctx context.Context, s *etcdlock.Session, address string, lead func(ctx context.Context) error) error {
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- etcdlock.NewElection(s, "/billing/leader").Run(ctx, address, lead)
	}()
	var err error
	select {
	case err = <-ended: // lead has returned by itself, or etcd refuses
	case <-ctx.Done(): // and so lead's context has ended as well
	}

	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if down := s.Shutdown(limit); down != nil { // waits until lead has returned, and the next process leads
		return errors.Join(err, down) // lead does not stop: now the process has to end
	}
	if err == nil {
		err = <-ended
	}
	stopped := errors.Is(err, context.Canceled) || errors.Is(err, etcdlock.ErrClosed)
	if stopped && !errors.Is(err, etcdlock.ErrLost) {
		return nil // as it was told to
	}
	return err
}

// health answers for the process: who may send it work, and whether it should be started again.
func health(s *etcdlock.Session) http.Handler {
	answer := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/readyz", answer(s.Check))                                                 // it has a lease
	mux.Handle("/livez", answer(func() error { return s.CheckOverrun(10 * time.Second) })) // no lead goes on that was lost
	return mux
}

// status is what the endpoint answers.
func status(s *etcdlock.Session, path string) int {
	w := httptest.NewRecorder()
	health(s).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code
}

func TestALeaderThatIsToldToStopHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		leads := make(chan string)
		process := func(address string) (stop func(), ended <-chan error) {
			ctx, cancel := context.WithCancel(t.Context())
			s, done := etcd.Session(), make(chan error, 1)
			go func() {
				done <- serve(ctx, s, address, func(ctx context.Context) error {
					leads <- address
					<-ctx.Done()
					time.Sleep(3 * time.Second) // to bring its work to an end
					return nil
				})
			}()
			return cancel, done
		}
		stop1, ended1 := process("10.0.0.1")
		require.Equal(t, "10.0.0.1", <-leads)
		stop2, ended2 := process("10.0.0.2")
		synctest.Wait() // it stands by

		told := time.Now()
		stop1()
		require.Equal(t, "10.0.0.2", <-leads)
		require.Equal(t, 3*time.Second, time.Since(told), "when the first is done, and not a TTL later")
		require.NoError(t, <-ended1)
		stop2()
		require.NoError(t, <-ended2)
	})
}

func TestALeaderThatDoesNotStopIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, free := locktest.New(t).Session(), make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		err := serve(ctx, s, "10.0.0.1", func(context.Context) error { <-free; return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "/billing/leader")
		require.Equal(t, 80*time.Second, time.Since(begin))
		close(free)
	})
}

func TestALeadThatEndsByItselfEndsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		failure := errors.New("no disk")
		for _, want := range []error{nil, failure} {
			err := serve(t.Context(), etcd.Session(), "10.0.0.1", func(context.Context) error { return want })
			require.Equal(t, want != nil, errors.Is(err, failure))
			require.Empty(t, etcd.Queue("/billing/leader"))
		}
	})
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		s, free := etcd.Session(), make(chan struct{})
		ended := make(chan error, 1)
		leads := make(chan struct{}, 10)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			ended <- serve(ctx, s, "10.0.0.1", func(context.Context) error { leads <- struct{}{}; <-free; return nil })
		}()
		<-leads
		require.Equal(t, http.StatusOK, status(s, "/readyz"))
		require.Equal(t, http.StatusOK, status(s, "/livez"))

		etcd.Cut()
		time.Sleep(20 * time.Second)
		require.Equal(t, http.StatusServiceUnavailable, status(s, "/readyz"), "the lease is lost")
		require.Equal(t, http.StatusOK, status(s, "/livez"), "so that nobody restarts the whole fleet because of it")
		time.Sleep(10 * time.Second)
		require.Equal(t, http.StatusServiceUnavailable, status(s, "/livez"), "lead goes on")

		etcd.Heal()
		free <- struct{}{} // the first one alone: serve is over when the next one returns
		<-leads
		require.Equal(t, http.StatusOK, status(s, "/readyz"))
		require.Equal(t, http.StatusOK, status(s, "/livez"))
		stop()
		close(free)
		require.NoError(t, <-ended)
		require.Equal(t, http.StatusServiceUnavailable, status(s, "/readyz"), "nobody should send it work any more")
	})
}

func TestASignalIsWhatEndsIt(t *testing.T) {
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	ended := make(chan error)
	told := make(chan struct{})
	go func() {
		ended <- untilTold(func(ctx context.Context) error {
			close(told)
			<-ctx.Done()
			return nil
		})
	}()
	<-told
	require.NoError(t, self.Signal(os.Interrupt))
	require.NoError(t, <-ended)
}
