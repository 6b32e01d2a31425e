package etcdlock

import (
	"context"

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
	// Modified is the revision at which the ticket was written last: its Token, unless somebody has written it since, as
	// Resume does.
	Modified int64
	// Class says with whom it can share its turn: "" with nobody (a Mutex, an Election, the write side of an RWMutex, a
	// foreign key), "read" with all readers, "2 of 10" with permits of the same 10, of which it takes 2.
	Class string
}

func contender(c *queue.Contender) Contender {
	return Contender{Identity: c.Value, Token: c.Rev, Lease: c.Lease, Key: c.Key, Modified: c.Mod, Class: c.Class()}
}

// Holders asks etcd who has the lock: nobody, a writer, or any number of readers, in the order in which they queued. It
// retries while etcd is away, until ctx ends.
func (m *RWMutex) Holders(ctx context.Context) ([]Contender, error) {
	holders, _, err := m.contenders(ctx, "holders of")
	return holders, err
}

// Holder asks etcd who has the lock, whoever that is; ErrNotHeld if nobody has. Where several share it (see RWMutex), it
// is the one that queued first. It retries while etcd is away, until ctx ends.
func (m *Mutex) Holder(ctx context.Context) (Contender, error) {
	holders, _, err := m.contenders(ctx, "holder of")
	if err == nil && len(holders) == 0 {
		err = m.failed("holder of", ErrNotHeld)
	}
	if err != nil {
		return Contender{}, err
	}
	return holders[0], nil
}

// Waiters asks etcd who waits for the lock, in the order of their turns; who holds is not among them. It retries while
// etcd is away, until ctx ends.
func (m *Mutex) Waiters(ctx context.Context) ([]Contender, error) {
	_, waiters, err := m.contenders(ctx, "waiters of")
	return waiters, err
}
