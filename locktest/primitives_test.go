package locktest_test

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// held is what all primitives hold with.
type held interface {
	Context() context.Context
	Token() int64
	Key() string
	IsOwner() []clientv3.Cmp
	Verify(ctx context.Context) error
	Release(ctx context.Context) error
}

// primitive is one way to hold a name.
type primitive struct {
	name    string
	class   string // as others see it
	notHeld error
	take    func(ctx context.Context, s *etcdlock.Session, name string) (held, error)
	try     func(ctx context.Context, s *etcdlock.Session, name string) (held, error)
	do      func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error
}

type mutexHeld struct{ *etcdlock.Mutex }

func (m mutexHeld) IsOwner() []clientv3.Cmp           { return []clientv3.Cmp{m.Mutex.IsOwner()} }
func (m mutexHeld) Release(ctx context.Context) error { return m.Unlock(ctx) }

type lead struct{ *etcdlock.Election }

func (l lead) IsOwner() []clientv3.Cmp           { return []clientv3.Cmp{l.Election.IsOwner()} }
func (l lead) Release(ctx context.Context) error { return l.Resign(ctx) }

// hold makes the interface nil where there is no hold.
func hold(h *etcdlock.Hold, err error) (held, error) {
	if h == nil {
		return nil, err
	}
	return h, err
}

func primitives() []primitive {
	return []primitive{
		{
			name: "mutex", notHeld: etcdlock.ErrNotHeld,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				m := etcdlock.NewMutex(s, name)
				return mutexHeld{m}, m.Lock(ctx)
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				m := etcdlock.NewMutex(s, name)
				return mutexHeld{m}, m.TryLock(ctx)
			},
			do: func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error {
				return etcdlock.NewMutex(s, name).Do(ctx, fn)
			},
		},
		{
			name: "election", notHeld: etcdlock.ErrNotLeader,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				e := etcdlock.NewElection(s, name)
				return lead{e}, e.Campaign(ctx, "")
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				e := etcdlock.NewElection(s, name)
				return lead{e}, e.TryCampaign(ctx, "")
			},
		},
		{
			name: "writer", notHeld: etcdlock.ErrNotHeld,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				m := etcdlock.NewRWMutex(s, name)
				return mutexHeld{&m.Mutex}, m.Lock(ctx)
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				m := etcdlock.NewRWMutex(s, name)
				return mutexHeld{&m.Mutex}, m.TryLock(ctx)
			},
			do: func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error {
				return etcdlock.NewRWMutex(s, name).Do(ctx, fn)
			},
		},
		{
			name: "reader", class: "read", notHeld: etcdlock.ErrNotHeld,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.NewRWMutex(s, name).RLock(ctx))
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.NewRWMutex(s, name).TryRLock(ctx))
			},
			do: func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error {
				return etcdlock.NewRWMutex(s, name).RDo(ctx, fn)
			},
		},
		{
			name: "permit", class: "1 of 2", notHeld: etcdlock.ErrNotHeld,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.NewSemaphore(s, name, 2).Acquire(ctx))
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.NewSemaphore(s, name, 2).TryAcquire(ctx))
			},
			do: func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error {
				return etcdlock.NewSemaphore(s, name, 2).Do(ctx, fn)
			},
		},
		{
			name: "lockall", notHeld: etcdlock.ErrNotHeld,
			take: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.LockAll(ctx, s, name+"-b", name, name+"-a"))
			},
			try: func(ctx context.Context, s *etcdlock.Session, name string) (held, error) {
				return hold(etcdlock.TryLockAll(ctx, s, name+"-b", name, name+"-a"))
			},
			do: func(ctx context.Context, s *etcdlock.Session, name string, fn func(context.Context) error) error {
				return etcdlock.DoAll(ctx, s, []string{name + "-b", name, name + "-a"}, fn)
			},
		},
	}
}
