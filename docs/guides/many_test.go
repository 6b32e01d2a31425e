package guides_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/locktest"
)

// share has the processes of a fleet share names: each name is worked on by one of them at a time, and what a process gives
// up, or held when it died, another takes. It returns when ctx has ended and all its work has.
func share(ctx context.Context, s *etcdlock.Session, names []string, work func(ctx context.Context, name string, token int64)) {
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			m := etcdlock.NewMutex(s, name)
			for ctx.Err() == nil {
				err := m.Do(ctx, func(ctx context.Context) error {
					work(ctx, name, m.Token())
					return nil
				})
				if err != nil && !errors.Is(err, etcdlock.ErrLost) {
					return // ctx, or the Session, is over; or etcd refuses
				}
			}
		})
	}
	all.Wait()
}

func TestNamesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := locktest.New(t)
		names := make([]string, 2000)
		for i := range names {
			names[i] = fmt.Sprintf("/shards/%04d", i)
		}
		var mu sync.Mutex
		working := map[string]int{} // names, and which process works on them
		process := func(number int) (stop func(), ended chan struct{}) {
			ctx, cancel := context.WithCancel(t.Context())
			s, ended := etcd.Session(), make(chan struct{})
			go func() {
				defer close(ended)
				share(ctx, s, names, func(ctx context.Context, name string, token int64) {
					mu.Lock()
					_, busy := working[name]
					working[name] = number
					mu.Unlock()
					if busy || token == 0 {
						t.Errorf("%s, token %d, is another's", name, token)
					}
					<-ctx.Done()
					mu.Lock()
					delete(working, name)
					mu.Unlock()
				})
			}()
			return cancel, ended
		}
		held := func(number int) (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range working {
				if p == number {
					n++
				}
			}
			return n
		}
		stop1, ended1 := process(1)
		synctest.Wait()
		require.Equal(t, len(names), held(1))
		leases, err := etcd.Client().Leases(t.Context())
		require.NoError(t, err)
		require.Len(t, leases.Leases, 1, "for all of them")

		stop2, ended2 := process(2)
		time.Sleep(time.Second)
		require.Zero(t, held(2))
		stop1()
		<-ended1
		time.Sleep(time.Second)
		require.Equal(t, len(names), held(2))
		stop2()
		<-ended2
	})
}
