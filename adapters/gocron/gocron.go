// Package gocronlock has the schedulers of a fleet share their jobs, for gocron.
package gocronlock

import (
	"context"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/go-co-op/gocron/v2"
)

// JobLocker is a gocron.Locker: each run of a job is that of one scheduler of the fleet. The lock of a job is Prefix and the
// job's name, and stays taken for Stay after the run, for the schedulers whose clocks are behind.
type JobLocker struct {
	Session *etcdlock.Session
	Prefix  string
	Stay    time.Duration
}

// Lock takes the lock of a job that nobody runs; its error says who does.
func (l JobLocker) Lock(ctx context.Context, job string) (gocron.Lock, error) {
	m := etcdlock.NewMutex(l.Session, l.Prefix+job)
	return jobLock{m, l.Stay}, m.TryLock(ctx)
}

type jobLock struct {
	m    *etcdlock.Mutex
	stay time.Duration
}

// Unlock releases it, also where the scheduler was shut down meanwhile, and its context with it.
func (l jobLock) Unlock(ctx context.Context) error {
	return l.m.UnlockAfter(context.WithoutCancel(ctx), l.stay)
}

// JobElector is a gocron.Elector: one scheduler of the fleet runs all jobs.
type JobElector struct {
	election *etcdlock.Election
	campaign context.Context // ends when Run does, with what it returned
}

// NewJobElector campaigns for the lead until ctx ends.
func NewJobElector(ctx context.Context, s *etcdlock.Session, name string) JobElector {
	e := etcdlock.NewElection(s, name)
	campaign, end := context.WithCancelCause(ctx)
	go func() {
		end(e.Run(ctx, "", func(ctx context.Context) error { <-ctx.Done(); return nil }))
	}()
	return JobElector{e, campaign}
}

// IsLeader is nil while this scheduler leads. It asks the clock, not etcd.
func (e JobElector) IsLeader(context.Context) error {
	if err := context.Cause(e.campaign); err != nil {
		return err
	}
	return e.election.Context().Err()
}
