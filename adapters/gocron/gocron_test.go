package gocronlock_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	gocronlock "github.com/etcdlock/etcdlock/adapters/gocron"
	"github.com/etcdlock/etcdlock/adapters/internal/host"
	"github.com/etcdlock/etcdlock/locktest"
)

// What gocron's own tests put in place of their fakes: three schedulers, of which each is to have a Session of its own.
const bridge = `
type countingLocker struct {
	Locker
	no chan struct{}
}

func (l countingLocker) Lock(ctx context.Context, key string) (Lock, error) {
	lock, err := l.Locker.Lock(ctx, key)
	if err != nil {
		l.no <- struct{}{}
	}
	return lock, err
}

type countingElector struct {
	Elector
	no chan struct{}
}

func (e countingElector) IsLeader(ctx context.Context) error {
	err := e.Elector.IsLeader(ctx)
	if err != nil {
		e.no <- struct{}{}
	}
	return err
}

func withLocker(etcd *locktest.Etcd, no chan struct{}) SchedulerOption {
	return func(s *scheduler) error {
		return WithDistributedLocker(countingLocker{JobLocker{etcd.Session(), "/jobs/", 2 * time.Second}, no})(s)
	}
}

func withJobLocker(etcd *locktest.Etcd, no chan struct{}) JobOption {
	return func(j *internalJob, now time.Time) error {
		return WithDistributedJobLocker(countingLocker{JobLocker{etcd.Session(), "/job/", 2 * time.Second}, no})(j, now)
	}
}

func withElector(t *testing.T, etcd *locktest.Etcd, no chan struct{}) SchedulerOption {
	return func(s *scheduler) error {
		session := etcd.Session()
		e := NewJobElector(t.Context(), session, "/leader")
		for leader, err := range etcdlock.NewElection(session, "/leader").Observe(t.Context()) {
			if err != nil || leader.Token != 0 {
				break // somebody leads before the jobs begin
			}
		}
		return WithDistributedElector(countingElector{e, no})(s)
	}
}
`

func TestTheTestsOfGocron(t *testing.T) {
	adapter, err := os.ReadFile("gocron.go")
	require.NoError(t, err)
	// A package's own tests cannot import what imports it, so the adapter becomes a file of theirs.
	inside := strings.NewReplacer("package gocronlock", "//go:build go1.23\n\npackage gocron", "gocron.Lock", "Lock",
		`	"github.com/go-co-op/gocron/v2"`, `	"github.com/etcdlock/etcdlock/locktest"`,
		"import (", "import (\n\t\"testing\"\n").Replace(string(adapter)) + bridge

	const file, fake = "scheduler_test.go", "{notLocked: notLocked}"
	host.Test(t, "github.com/go-co-op/gocron/v2", "^TestScheduler_WithDistributed$", []string{
		"TestScheduler_WithDistributed",
		"TestScheduler_WithDistributed/3_schedulers_with_elector",
		"TestScheduler_WithDistributed/3_schedulers_with_locker",
		"TestScheduler_WithDistributed/3_schedulers_and_job_with_Distributed_locker",
		"TestScheduler_WithDistributed/3_schedulers_and_job_with_disabled_Distributed_locker",
	}, []host.Edit{
		// Ours end after the look for what is left behind.
		host.Put(file, "func TestScheduler_WithDistributed(t *testing.T) {\n\tdefer verifyNoGoroutineLeaks(t)\n",
			"func TestScheduler_WithDistributed(t *testing.T) {\n\tetcd := locktest.New(t)\n"),
		host.Put(file, "import (", "import (\n\t\"github.com/etcdlock/etcdlock/locktest\"\n"),
		host.Put(file, "WithDistributedElector(&testElector{notLeader: notLeader})", "withElector(t, etcd, notLeader)"),
		host.Put(file, "WithDistributedLocker(&testLocker"+fake+"),\n\t\t\t},\n\t\t\tnil,", "withLocker(etcd, notLocked),\n\t\t\t},\n\t\t\tnil,"),
		host.Put(file, "WithDistributedJobLocker(&testLocker"+fake+")", "withJobLocker(etcd, notLocked)"),
		host.Put(file, "WithDistributedLocker(&testLocker"+fake+"),\n\t\t\t},\n\t\t\t[]JobOption{", "withLocker(etcd, notLocked),\n\t\t\t},\n\t\t\t[]JobOption{"),
	}, map[string]string{"etcdlock_test.go": inside})
}

// scheduler is one of a fleet.
func scheduler(t *testing.T, task func(), opts ...gocron.SchedulerOption) {
	t.Helper()
	s, err := gocron.NewScheduler(opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Shutdown() })
	_, err = s.NewJob(gocron.OneTimeJob(gocron.OneTimeJobStartImmediately()), gocron.NewTask(task), gocron.WithName("report"))
	require.NoError(t, err)
	s.Start()
}

func TestAJobIsRunOnceThoughTheClocksDiffer(t *testing.T) {
	etcd := locktest.New(t)
	var ran atomic.Int64
	done := make(chan struct{}, 1)
	scheduler(t, func() { ran.Add(1); done <- struct{}{} },
		gocron.WithDistributedLocker(gocronlock.JobLocker{Session: etcd.Session(), Prefix: "/jobs/", Stay: time.Hour}))
	<-done

	late := gocronlock.JobLocker{Session: etcd.Session(), Prefix: "/jobs/", Stay: time.Hour}
	_, err := late.Lock(t.Context(), "report")
	require.ErrorIs(t, err, etcdlock.ErrLocked)
	require.EqualValues(t, 1, ran.Load())
}

func TestAJobLockIsReleasedThoughItsSchedulerWasShutDown(t *testing.T) {
	etcd := locktest.New(t)
	ctx, shutDown := context.WithCancel(t.Context())
	l, err := gocronlock.JobLocker{Session: etcd.Session(), Prefix: "/jobs/"}.Lock(ctx, "report")
	require.NoError(t, err)
	shutDown()
	require.NoError(t, l.Unlock(ctx))
	require.Empty(t, etcd.Queue("/jobs/report"))
}

func TestAnElectorSaysWhyItDoesNotLead(t *testing.T) {
	etcd := locktest.New(t)
	s := etcd.Session()
	release := etcd.Occupy("/leader", "another")
	e := gocronlock.NewJobElector(t.Context(), s, "/leader")
	require.Error(t, e.IsLeader(t.Context()), "another leads")
	release()
	require.Eventually(t, func() bool { return e.IsLeader(t.Context()) == nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return e.IsLeader(t.Context()) != nil }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return errors.Is(e.IsLeader(t.Context()), etcdlock.ErrClosed) }, 20*time.Second, time.Millisecond)
}
