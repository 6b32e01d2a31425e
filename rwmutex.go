package etcdlock

import (
	"context"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// RWMutex is a distributed lock with two sides. Its write side is a Mutex, and all that is said of Mutex is true of it:
// it excludes everybody. Its read side is shared: any number of readers hold at once, each with a Hold of its own.
//
// Turns go first come, first served: a reader waits for every writer that queued before it, whether that one holds or
// waits, and a writer for everybody before it. So nobody starves. A Mutex of the same name, etcd's concurrency.Mutex and
// etcdctl lock are writers.
//
// A reader cannot become a writer, nor a writer a reader: of two readers that both wait to become writers neither ever
// would, and between giving up one side and taking the other somebody else may have a turn. A reader that asks for the
// write side, or for the read side again, while others wait, waits for itself until its context ends.
type RWMutex struct {
	Mutex
}

// NewRWMutex returns an RWMutex for name; see NewMutex. It asks nothing of etcd.
func NewRWMutex(s *Session, name string) *RWMutex {
	return &RWMutex{Mutex: Mutex{handle: handle{named: named{s: s, name: name, kind: mutexKind}}}}
}

func (m *RWMutex) reader() *named { return &named{s: m.s, name: m.name, kind: readerKind} }

// RLock waits for the read side for as long as ctx allows. Errors are those of Mutex.Lock, and mean that nothing is held
// and that no ticket stays in the queue.
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

// TryRLock takes the read side if nobody holds or waits for the write side, and else says at once who does; see
// Mutex.TryLock.
func (m *RWMutex) TryRLock(ctx context.Context) (*Hold, error) {
	r := m.reader()
	if err := r.begin(ctx, r.kind.take); err != nil {
		return nil, err
	}
	var seen queue.Seen
	t, by, err := m.s.tickets.Try(ctx, r.kind.ticket, m.name, m.s.opts.identity, &seen)
	switch {
	case err != nil:
		return nil, r.failed(r.kind.take, err)
	case by != nil:
		return nil, r.lockedBy(by)
	}
	return r.hold(t), nil
}

// RDo takes the read side, runs fn and releases it; see Mutex.Do.
func (m *RWMutex) RDo(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := m.reader().needs(ctx, "do", fn); err != nil {
		return err
	}
	h, err := m.RLock(ctx)
	if err != nil {
		return err
	}
	return h.do(ctx, fn)
}
