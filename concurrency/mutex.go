package concurrency

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	v3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// Mutex is a lock. It is used like a sync.Mutex: one hold at a time, also among the goroutines of one session.
type Mutex struct {
	s    *Session
	name string
	lock *etcdlock.Mutex // by the session itself

	mu  sync.Mutex // guards what follows; a leaf
	key string     // of the ticket, empty when not held
	rev int64      // its create revision
	hdr *pb.ResponseHeader
}

// NewMutex returns a lock for the prefix.
func NewMutex(s *Session, pfx string) *Mutex {
	return &Mutex{s: s, name: pfx, lock: etcdlock.NewMutex(s.live, pfx)}
}

// Lock waits for the lock as long as ctx allows.
func (m *Mutex) Lock(ctx context.Context) error {
	return m.take(ctx, true, func(l *etcdlock.Mutex) error { return l.Lock(ctx) })
}

// TryLock takes the lock if nobody has it and nobody waits, and else returns ErrLocked at once.
func (m *Mutex) TryLock(ctx context.Context) error {
	return m.take(ctx, false, func(l *etcdlock.Mutex) error {
		err := l.TryLock(ctx)
		if errors.Is(err, etcdlock.ErrLocked) {
			return ErrLocked
		}
		return err
	})
}

// take gets the lock: by what is left of a given lease in the queue, also if that waits; else by get.
func (m *Mutex) take(ctx context.Context, waits bool, get func(l *etcdlock.Mutex) error) error {
	return m.s.on(ctx, func(live *etcdlock.Session, own bool) error {
		l := m.lock
		if !own {
			l = etcdlock.NewMutex(live, m.name)
		}
		defer m.s.calls(m.name)()
		err := m.s.takeUp(ctx, m.name, waits, func(left etcdlock.Contender) error { return l.Resume(ctx, left.Key, left.Modified) })
		if errors.Is(err, etcdlock.ErrTaken) {
			err = get(l)
		}
		if errors.Is(err, etcdlock.ErrLost) { // the lease, while the lock was taken up
			err = ErrSessionExpired
		}
		if err != nil {
			return err
		}
		key, rev := l.Key(), l.Token()
		resp, there, err := m.s.header(ctx, key, rev)
		if err == nil && there {
			m.holds(key, rev)
			m.answered(resp.Header)
			return nil
		}
		m.s.giveBack(key, rev, func() error { return l.Unlock(ctx) }) // ctx may be over: it goes on in the background
		if err == nil {
			return ErrSessionExpired // as etcd's package says it when the key is gone
		}
		return err
	})
}

// Unlock releases the lock. ErrLockReleased: nothing was held. etcdlock.ErrLost, which etcd's package does not have: the hold
// had ended before, and what was done under it was not protected to its end. Otherwise, called again before the value is locked
// again, also by another goroutine, it tells how it went on. It releases what the value holds now. After Orphan the value does not
// know that a hold was lost: then that may be the next one, of another goroutine.
func (m *Mutex) Unlock(ctx context.Context) error {
	key, rev := m.held()
	if key == "" {
		return ErrLockReleased
	}
	err := m.s.on(ctx, func(live *etcdlock.Session, own bool) error {
		if own {
			return m.lock.Unlock(ctx)
		}
		l := etcdlock.NewMutex(live, m.name)
		holder, err := l.Holder(ctx)
		switch {
		case errors.Is(err, etcdlock.ErrNotHeld) || err == nil && (holder.Key != key || holder.Token != rev):
			return etcdlock.ErrLost
		case err == nil:
			err = l.Resume(ctx, key, holder.Modified)
		}
		if err != nil {
			return err
		}
		return l.Unlock(ctx)
	})
	switch {
	case errors.Is(err, etcdlock.ErrNotHeld):
		err = ErrLockReleased
	case errors.Is(err, ErrSessionExpired):
		err = etcdlock.ErrLost
	case err != nil && !errors.Is(err, etcdlock.ErrLost):
		return err // ask again
	}
	m.released(key, rev)
	return err
}

func (m *Mutex) held() (key string, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.key, m.rev
}

func (m *Mutex) holds(key string, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.holds(m.key, key)
	m.key, m.rev = key, rev
}

// released forgets one hold. Another goroutine may have the next one by now: it gets it in memory, before the deletion of this
// one is confirmed.
func (m *Mutex) released(key string, rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == key && m.rev == rev {
		m.s.holds(key, "")
		m.key, m.rev = "", 0
	}
}

func (m *Mutex) answered(hdr *pb.ResponseHeader) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hdr = hdr
}

// IsOwner is a comparison that is true while the lock is held. When it is not held, it is never true.
func (m *Mutex) IsOwner() v3.Cmp {
	if m.s.isOrphaned() {
		if key, rev := m.held(); key != "" {
			return v3.Compare(v3.CreateRevision(key), "=", rev)
		}
	}
	return m.lock.IsOwner()
}

// Key is the key of the hold in etcd, empty when the lock is not held.
func (m *Mutex) Key() string {
	key, _ := m.held()
	return key
}

// Header is of an answer of etcd's from when the lock was held for the first time.
func (m *Mutex) Header() *pb.ResponseHeader {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hdr
}

type locker struct{ *Mutex }

// Lock panics where Mutex.Lock fails.
func (l locker) Lock() {
	if err := l.Mutex.Lock(l.s.client.Ctx()); err != nil {
		panic(err)
	}
}

// Unlock panics where Mutex.Unlock fails. That the hold had been lost is told in the client's log.
func (l locker) Unlock() {
	err := l.Mutex.Unlock(l.s.client.Ctx())
	switch {
	case errors.Is(err, etcdlock.ErrLost):
		logger(l.s.client).Error("etcdlock: Unlock", "name", l.name, "error", err)
	case err != nil:
		panic(err)
	}
}

// NewLocker returns a lock for the prefix as a sync.Locker.
func NewLocker(s *Session, pfx string) sync.Locker { return locker{NewMutex(s, pfx)} }
