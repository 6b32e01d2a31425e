package etcdlock

import (
	"context"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// RWMutex is a distributed lock with two sides. Its write side is a Mutex, and all that is said of Mutex is true of it:
// it excludes everybody. Its read side is shared: any number of readers hold at once, each with a Hold of its own. An
// RWMutex is shared by goroutines and not copied; all methods are safe for concurrent use.
//
// Turns go first come, first served: a reader waits for every writer that queued before it, whether that one holds or
// waits, and a writer for everybody before it. So nobody starves. A Mutex of the same name, etcd's concurrency.Mutex and
// etcdctl lock are writers. An Election must have a name of its own. etcd's recipes.RWMutex is another lock: it keeps its
// keys elsewhere, so the two do not see each other.
//
// A reader cannot become a writer, nor a writer a reader: of two readers that both wait to become writers neither ever
// would, and between giving up one side and taking the other somebody else may have a turn. Release, then take the other
// side, and look again at what was read before. Whoever holds one side and waits for either side of the same name may wait
// for itself, until its context ends.
//
// A store that fences takes a write if its token is not below the greatest of any hold, and a read if its token is not below
// the greatest of any writer: readers that hold together have different tokens, in no order that matters.
type RWMutex struct {
	Mutex

	readSeen queue.Seen // who was in the way of the last TryRLock; guarded by mu
}

// NewRWMutex returns an RWMutex for name; see NewMutex. It asks nothing of etcd.
func NewRWMutex(s *Session, name string) *RWMutex {
	return &RWMutex{Mutex: Mutex{handle: handle{named: named{s: s, name: name, kind: mutexKind}}}}
}

func (m *RWMutex) reader() named { return named{s: m.s, name: m.name, kind: readerKind} }

// RLock waits for the read side for as long as ctx allows. Once it has returned, ctx has no bearing on the hold, which
// lasts until Release, or until it is lost: give each Hold back, a lost one too.
//
// Errors are those of Mutex.Lock, and mean that nothing is held and that no ticket stays in the queue.
func (m *RWMutex) RLock(ctx context.Context) (*Hold, error) {
	r := m.reader()
	if err := r.begin(ctx, r.kind.take); err != nil {
		return nil, err
	}
	t, err := r.acquire(ctx, m.s.opts.identity, r.lockedBy)
	if err != nil {
		return nil, err
	}
	return r.hold(t), nil
}

// TryRLock takes the read side if nobody holds or waits for the write side, and else says at once who does. Its costs and
// its errors are those of Mutex.TryLock; that somebody else reads is none.
func (m *RWMutex) TryRLock(ctx context.Context) (*Hold, error) {
	r := m.reader()
	if err := r.begin(ctx, r.kind.take); err != nil {
		return nil, err
	}
	t, by, err := r.try(ctx, m.s.opts.identity, &m.mu, &m.readSeen)
	switch {
	case err != nil:
		return nil, err
	case by != nil:
		return nil, r.lockedBy(by)
	}
	return r.hold(t), nil
}

// RDo takes the read side, runs fn and releases it; see Mutex.Do. Where fn needs the token, use RLock.
func (m *RWMutex) RDo(ctx context.Context, fn func(ctx context.Context) error) error {
	return m.rdo(ctx, fn, m.RLock)
}

// TryRDo is RDo if nobody holds or waits for the write side. Else fn is not called, and TryRDo says at once who does, with
// TryRLock's error.
func (m *RWMutex) TryRDo(ctx context.Context, fn func(ctx context.Context) error) error {
	return m.rdo(ctx, fn, m.TryRLock)
}

func (m *RWMutex) rdo(ctx context.Context, fn func(context.Context) error, take func(context.Context) (*Hold, error)) error {
	r := m.reader()
	if err := r.needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := take(ctx)
	if err != nil {
		return err
	}
	return h.do(ctx, fn)
}
