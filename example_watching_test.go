package etcdlock_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock"
)

// Two probes for two questions. Readiness asks whether this process can hold anything: while etcd is away it cannot, and
// killing it would not help. Liveness asks whether it goes on with what it no longer holds: then killing it does.
func ExampleSession_Check() {
	client, stop := exampleEtcd()
	defer stop()
	s, err := etcdlock.NewSession(context.Background(), client)
	if err != nil {
		panic(err)
	}

	health := func(check func() error) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/readyz", health(s.Check))
	mux.Handle("/livez", health(func() error { return s.CheckOverrun(10 * time.Second) }))

	get := func(path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(path, " ", w.Code, " ", w.Body)
	}
	get("/readyz")
	get("/livez")
	if err := s.Close(); err != nil {
		panic(err)
	}
	get("/readyz")
	get("/livez")
	// Output:
	// /readyz 200 ok
	// /livez 200 ok
	// /readyz 503 etcdlock: check: etcdlock: session closed
	// /livez 200 ok
}

// Hooks tell what happens, in the background: here, how often a lock was lost, and how long each call waited.
func ExampleWithHooks() {
	client, stop := exampleEtcd()
	defer stop()
	ctx := context.Background()

	var lost atomic.Int64
	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(etcdlock.Hooks{
		WaitEnded: func(_ context.Context, w etcdlock.WaitEnd) {
			fmt.Println(w.Kind, w.Name, "is", w.Outcome, "in good time:", w.Waited < 20*time.Second)
		},
		HoldEnded: func(h etcdlock.HoldEnd) {
			if h.Ending == etcdlock.EndingLost {
				lost.Add(1)
			}
			fmt.Println(h.Kind, h.Name, "is", h.Ending)
		},
	}))
	if err != nil {
		panic(err)
	}
	if err := etcdlock.NewMutex(s, "/jobs/report").Do(ctx, func(context.Context) error { return nil }); err != nil {
		panic(err)
	}
	if err := s.Close(); err != nil { // waits until all is told
		panic(err)
	}
	fmt.Println(lost.Load(), "lost")
	// Output:
	// mutex /jobs/report is held in good time: true
	// mutex /jobs/report is released
	// 0 lost
}
