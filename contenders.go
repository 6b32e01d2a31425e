package etcdlock

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
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

func contender(kv *mvccpb.KeyValue) Contender {
	return Contender{
		Identity: string(kv.Value), Token: kv.CreateRevision, Lease: clientv3.LeaseID(kv.Lease), Key: string(kv.Key),
	}
}

// Holder asks etcd who has the lock, whoever that is; ErrNotHeld if nobody has. It retries while etcd is away, until
// ctx ends.
func (m *Mutex) Holder(ctx context.Context) (Contender, error) {
	all, err := m.contenders(ctx, "holder")
	if err != nil {
		return Contender{}, err
	}
	if len(all) == 0 {
		return Contender{}, fmt.Errorf("etcdlock: holder of %q: %w", m.name, ErrNotHeld)
	}
	return all[0], nil
}

// Waiters asks etcd who waits for the lock, in the order of their turns; the holder is not among them. It retries while
// etcd is away, until ctx ends.
func (m *Mutex) Waiters(ctx context.Context) ([]Contender, error) {
	all, err := m.contenders(ctx, "waiters")
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[1:], nil
}

func (m *Mutex) contenders(ctx context.Context, what string) ([]Contender, error) {
	if err := m.begin(ctx, what+" of"); err != nil {
		return nil, err
	}
	kvs, err := m.s.contenders(ctx, m.name)
	if err != nil {
		return nil, fmt.Errorf("etcdlock: %s of %q: %w", what, m.name, err)
	}
	all := make([]Contender, len(kvs))
	for i, kv := range kvs {
		all[i] = contender(kv)
	}
	return all, nil
}

// contenders lists the queue of a name, which this Session need not be in.
func (s *Session) contenders(ctx context.Context, name string) ([]*mvccpb.KeyValue, error) {
	switch {
	case s.closing.Err() != nil:
		return nil, s.over()
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.closing, func() { cancel(s.over()) })()
	kvs, _, err := newLine(s, name).list(ctx)
	if err != nil && s.closing.Err() != nil {
		err = s.over()
	}
	return kvs, err
}
