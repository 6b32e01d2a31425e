package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// env is one running server and what the checks need of it.
type env struct {
	cluster *cluster.Cluster
	client  *clientv3.Client
}

func newEnv(cl *cluster.Cluster) (*env, error) {
	client, err := cluster.NewClient(cl.Endpoints()...)
	if err != nil {
		return nil, err
	}
	return &env{cluster: cl, client: client}, nil
}

// check is one row of the table. It uses names of its own, and sessions and clients that end with it.
type check struct {
	name, what string
	run        func(s *scene) (note string, err error)
}

// checkTime bounds one check.
const checkTime = 30 * time.Second

// checkAll runs the checks that count or measure one by one, then those that mostly wait all at once, and at last
// those that disturb the server.
func (e *env) checkAll(ctx context.Context) map[string]outcome {
	outcomes := map[string]outcome{}
	var mu sync.Mutex
	run := func(c check) {
		s := &scene{env: e, name: "/compat/" + c.name}
		var cancel context.CancelFunc
		s.ctx, cancel = context.WithTimeout(ctx, checkTime)
		note, err := c.run(s)
		err = errors.Join(err, s.end())
		cancel()
		mu.Lock()
		defer mu.Unlock()
		outcomes[c.name] = outcome{note, err}
	}
	for _, c := range quiet {
		run(c)
	}
	var wg sync.WaitGroup
	for _, c := range patient {
		wg.Go(func() { run(c) })
	}
	wg.Wait()
	for _, c := range rough {
		run(c)
	}
	return outcomes
}

// scene is what one check has to itself.
type scene struct {
	*env
	ctx   context.Context
	name  string
	after []func() error
}

// end closes what the check has opened, the last first.
func (s *scene) end() error {
	var errs []error
	for i := len(s.after) - 1; i >= 0; i-- {
		errs = append(errs, s.after[i]())
	}
	return errors.Join(errs...)
}

func (s *scene) session(opts ...etcdlock.Option) (*etcdlock.Session, error) {
	return s.sessionOf(s.client, opts...)
}

func (s *scene) sessionOf(client *clientv3.Client, opts ...etcdlock.Option) (*etcdlock.Session, error) {
	es, err := etcdlock.NewSession(s.ctx, client, opts...)
	if err == nil {
		s.after = append(s.after, es.Close)
	}
	return es, err
}

// mutexes returns n Mutexes of the scene's name, each of a Session of its own.
func (s *scene) mutexes(n int, opts ...etcdlock.Option) ([]*etcdlock.Mutex, error) {
	ms := make([]*etcdlock.Mutex, n)
	for i := range ms {
		es, err := s.session(opts...)
		if err != nil {
			return nil, err
		}
		ms[i] = etcdlock.NewMutex(es, s.name)
	}
	return ms, nil
}

// queued waits until n keys are under the name.
func (s *scene) queued(n int) error {
	for {
		resp, err := s.client.Get(s.ctx, s.name+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return err
		}
		if resp.Count == int64(n) {
			return nil
		}
		if err := s.pass(5 * time.Millisecond); err != nil {
			return fmt.Errorf("%d keys under %s, not %d: %w", resp.Count, s.name, n, err)
		}
	}
}

// pass lets d go by.
func (s *scene) pass(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// await waits for one value.
func await[T any](s *scene, from <-chan T) (T, error) {
	select {
	case v := <-from:
		return v, nil
	case <-s.ctx.Done():
		var none T
		return none, s.ctx.Err()
	}
}

// expect is an error if err does not match want.
func expect(what string, err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("%s: %v instead of %v", what, err, want) //nolint:errorlint // a mismatch is reported, not passed on
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
