package etcdlock_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/etcdlock/etcdlock"
)

// A service that is told to stop: the job under way is finished, within 10 s, and no other is begun.
func ExampleSession_Shutdown() {
	client, stop := exampleEtcd()
	defer stop()
	s, err := etcdlock.NewSession(context.Background(), client)
	if err != nil {
		fmt.Println(err)
		return
	}
	told, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()

	m := etcdlock.NewMutex(s, "/jobs/import")
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		// Not with told, whose end would end the job.
		ended <- m.Do(context.Background(), func(context.Context) error {
			close(begun)
			<-told.Done() // and still it goes on
			fmt.Println("the job is done")
			return nil
		})
	}()

	<-begun
	interrupt() // somebody presses Ctrl-C
	<-told.Done()
	limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("shutdown:", s.Shutdown(limit))
	fmt.Println("the job:", <-ended)
	fmt.Println("another one:", m.Lock(limit))
	// Output:
	// the job is done
	// shutdown: <nil>
	// the job: <nil>
	// another one: etcdlock: lock "/jobs/import": etcdlock: session closed
}

func interrupt() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(os.Interrupt)
	}
	if err != nil {
		panic(err)
	}
}
