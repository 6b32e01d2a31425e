package etcdlock

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Contender is one place in the queue of a lock, as etcd shows it. It carries no time: tickets do not.
type Contender struct {
	// Identity is the ticket's value: the Session's identity, or whatever a foreign contender wrote.
	Identity string
	// Token is the ticket's create revision: its place in the order, and the fencing token once it holds.
	Token int64
	// Lease is what the ticket hangs on; 0 for a foreign key without a lease, which nothing will expire.
	Lease clientv3.LeaseID
	// Key is the ticket's key in etcd.
	Key string
}

func contender(c *queue.Contender) Contender {
	return Contender{Identity: c.Value, Token: c.Rev, Lease: c.Lease, Key: c.Key}
}

// Holder asks etcd who has the lock, whoever that is; ErrNotHeld if nobody has. It retries while etcd is away, until
// ctx ends.
func (m *Mutex) Holder(ctx context.Context) (Contender, error) {
	if err := m.begin(ctx, "holder of"); err != nil {
		return Contender{}, err
	}
	all, _, err := m.list(ctx)
	if err == nil && len(all) == 0 {
		err = ErrNotHeld
	}
	if err != nil {
		return Contender{}, fmt.Errorf("etcdlock: holder of %q: %w", m.shown(), err)
	}
	return contender(all[0]), nil
}

// Waiters asks etcd who waits for the lock, in the order of their turns; who holds is not among them. It retries while
// etcd is away, until ctx ends.
func (m *Mutex) Waiters(ctx context.Context) ([]Contender, error) {
	if err := m.begin(ctx, "waiters of"); err != nil {
		return nil, err
	}
	all, holders, err := m.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: waiters of %q: %w", m.shown(), err)
	}
	var waiters []Contender
	for _, c := range all[holders:] {
		waiters = append(waiters, contender(c))
	}
	return waiters, nil
}

// list lists the queue of the name, which this Session need not be in, and how many of it hold.
func (h *handle) list(ctx context.Context) (all []*queue.Contender, holders int, err error) {
	switch {
	case h.s.over() != nil:
		return nil, 0, h.s.over()
	case ctx.Err() != nil:
		return nil, 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.s.tasks.Closing(), cancel)()
	all, holders, _, err = queue.KeysOf(h.name).List(ctx, h.s.client)
	if err != nil && h.s.over() != nil {
		err = h.s.over()
	}
	return all, holders, err
}
