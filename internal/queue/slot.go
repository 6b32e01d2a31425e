package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file gives numbers to permits that hold. A number is a key of its own, name/of-<N>-slot/<number>, on the ticket's
// lease: further down than tickets, so it is nobody's contender in the queue of the name. Its value says whose it is, and its
// create revision fences.
//
// A ticket has one at most, whatever is sent twice or arrives late: the Txn that takes one asks whether the ticket is there
// and has none. None is overwritten: a put would keep the create revision of the owner before.

// ErrAllTaken says that no number was free in time: one of them is of a hold whose ticket others have removed.
var ErrAllTaken = errors.New("all numbers are taken")

// Permit reports whether the ticket is one.
func (t *Ticket) Permit() bool { return t.kind.Class.permits() }

// slots is the prefix of the keys of numbers.
func (t *Ticket) slots() string { return t.group.prefix + t.kind.Class.word + "slot/" }

// mark is the value of the key of the ticket's number.
func (t *Ticket) mark() string { return fmt.Sprintf("%s@%d", t.key, t.rev) }

// Slot returns the number of a permit that holds, and its token. If the ticket has none it takes one.
func (t *Ticket) Slot(ctx context.Context) (n, token int64, err error) {
	err = t.whileHeld(ctx, func(ctx context.Context) error {
		n, token, err = t.slot(ctx)
		return err
	})
	return n, token, err
}

func (t *Ticket) slot(ctx context.Context) (n, token int64, err error) {
	var pace rpc.Pace
	full := false
	taken, err := t.takenSlots(ctx)
	for first := true; err == nil; first = false {
		mine, free := t.readSlots(taken)
		full = len(free) == 0
		switch {
		case mine != nil:
			n, _ := t.number(mine)
			return n, mine.CreateRevision, nil
		case full && !pace.Wait(ctx):
			err = ctx.Err()
		case full:
			taken, err = t.takenSlots(ctx)
		case first:
			taken, err = t.takeSlot(ctx, free[0])
		default: // somebody else was faster, who may be so again
			taken, err = t.takeSlot(ctx, free[t.rev%int64(len(free))])
		}
	}
	if full && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrAllTaken, err)
	}
	return 0, 0, err
}

func (t *Ticket) takenSlots(ctx context.Context) ([]*mvccpb.KeyValue, error) {
	answers, _, err := t.group.q.c.ReadAt(ctx, 0, func(int64) clientv3.Op { return clientv3.OpGet(t.slots(), clientv3.WithPrefix()) })
	if err != nil {
		return nil, err
	}
	return answers[0].Kvs, nil
}

// readSlots finds the ticket's own number among those that are taken, and those that are free.
func (t *Ticket) readSlots(taken []*mvccpb.KeyValue) (mine *mvccpb.KeyValue, free []int64) {
	used := make(map[int64]bool, len(taken))
	for _, kv := range taken {
		n, ok := t.number(kv)
		used[n] = used[n] || ok
		if ok && string(kv.Value) == t.mark() {
			mine = kv
		}
	}
	for n := int64(0); n < t.kind.Class.limit && len(free) <= len(taken); n++ {
		if !used[n] {
			free = append(free, n)
		}
	}
	return mine, free
}

// number is that of a slot's key.
func (t *Ticket) number(kv *mvccpb.KeyValue) (n int64, ok bool) {
	digits := strings.TrimPrefix(string(kv.Key), t.slots())
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil && digits == strconv.FormatInt(n, 10)
}

// takeSlot takes number n if it is free, and returns those that are taken then.
func (t *Ticket) takeSlot(ctx context.Context, n int64) ([]*mvccpb.KeyValue, error) {
	q, key := t.group.q, t.slots()+strconv.FormatInt(n, 10)
	q.mu.Lock()
	if t.state != held {
		q.mu.Unlock()
		return nil, errRequeue // the hold has ended, which says why
	}
	if !slices.Contains(t.asked, key) {
		t.asked = append(t.asked, key)
	}
	q.mu.Unlock()
	all := clientv3.OpGet(t.slots(), clientv3.WithPrefix())
	put := clientv3.OpPut(key, t.mark(), clientv3.WithLease(t.lease.ID))
	nobodys := clientv3.Compare(clientv3.CreateRevision(t.slots()).WithPrefix(), "=", 0)
	notMine := clientv3.Compare(clientv3.Value(t.slots()).WithPrefix(), "!=", t.mark()) // not true of no key at all
	resp, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return q.c.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0), clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)).
			Then(
				clientv3.OpTxn([]clientv3.Cmp{nobodys}, []clientv3.Op{put},
					[]clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{notMine}, []clientv3.Op{put}, nil)}),
				all).
			Else(clientv3.OpGet(t.key, clientv3.WithKeysOnly()), all).
			Commit()
	})
	if err != nil {
		return nil, t.leaseGone(err)
	}
	taken := resp.Responses[1].GetResponseRange().Kvs
	if !resp.Succeeded && generationOf(resp.Responses[0].GetResponseRange().Kvs, t.key, t.rev) == nil {
		t.Removed(resp.Header.Revision)
		return nil, errRequeue // as above
	}
	return taken, nil
}

// slotDeletions delete the ticket's number, and nobody else's: of any that it has asked for, the key that has its mark.
func (t *Ticket) slotDeletions() (ops []clientv3.Op) {
	for _, key := range t.asked {
		mine := clientv3.Compare(clientv3.Value(key), "=", t.mark())
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{mine}, []clientv3.Op{clientv3.OpDelete(key)}, nil))
	}
	return ops
}

// dropSlots deletes the number of a ticket that somebody else has removed.
func (t *Ticket) dropSlots() {
	q := t.group.q
	q.mu.Lock()
	ops := t.slotDeletions()
	q.mu.Unlock()
	if len(ops) == 0 {
		return
	}
	q.tasks.Go(func() {
		err := q.commit(t.lease.Context(), ops)
		if err != nil && t.lease.Context().Err() == nil {
			q.log.Debug("etcdlock: deleting the number of a ticket that others removed", "ticket", t.key, "error", err)
		}
	})
}
