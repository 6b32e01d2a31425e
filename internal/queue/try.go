package queue

import (
	"context"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file takes a lock only if it is free.

// Seen is a holder that etcd named at an earlier try. The zero value is none.
type Seen generation

// Try takes all names if nobody is in the way in any of them, and else returns who is, and in which. seen is the holder
// that etcd named at the last try, and is set to the one that it names now. as is what the names are called together.
func (q *Tickets) Try(
	ctx context.Context, k *Kind, as string, names []string, value string, seen *Seen,
) (t *Ticket, by *Contender, in string, err error) {
	w := q.waitBegun(ctx, k, as, true)
	t, by, in, err = q.untilHeld(ctx, k, names, value, func(s set, ctx context.Context) (*Contender, error) {
		by, err := s.try(ctx, seen)
		for i := 0; by == nil && err == nil && i < len(s); i++ {
			err = s[i].grant()
		}
		return by, err
	})
	q.waitEnded(ctx, w, t, by, in, err)
	return t, by, in, err
}

// try puts the tickets if nobody is in the way, and else returns who is.
func (s set) try(ctx context.Context, seen *Seen) (by *Contender, err error) {
	ctx, release := s[0].lease.bound(ctx)
	defer release()
	for _, t := range s {
		if by := t.ownHolder(); by != nil {
			return by, nil
		}
	}
	for _, t := range s {
		if err := t.group.settle(ctx, t.kind.Class); err != nil {
			return nil, err
		}
	}
	if s[0].kind.Class.counted() {
		by, err = s.tryCounted(ctx, seen)
	} else if by, err = s.of().stillHeld(ctx, seen); by == nil && err == nil {
		by, err = s.enqueueIfFree(ctx, s[0].kind.Class, 1, 1)
	}
	if by != nil {
		*seen = Seen{by.Key, by.Rev}
		s[0].warnOf(by.Key)
	}
	return by, err
}

// ownHolder tells that a ticket of this Session holds.
func (t *Ticket) ownHolder() *Contender {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return t.group.ownHolderLocked(t.kind.Class)
}

// tryCounted is for a permit. etcd cannot count, so we do: that there is room as of one revision is true for as long as
// nobody comes after it, and that a Txn can ask for. In an empty name that is one request, else two. Where the last try was
// in vain, the first of them is a list alone, which goes through no log.
func (s set) tryCounted(ctx context.Context, seen *Seen) (*Contender, error) {
	below := int64(1)
	if seen.key != "" {
		by, rev, err := s[0].firstInTheWay(ctx)
		if by != nil || err != nil {
			return by, err
		}
		*seen, below = Seen{}, rev+1
	}
	return s.enqueueIfFree(ctx, Exclusive, below, 1+enough(s[0].kind.Class))
}

// settle waits until the tickets that this Session has released are gone from etcd: they would make the name look busy for
// one of class c. Where others of its tickets are queued, the name is busy anyway, unless they share their turn.
func (g *group) settle(ctx context.Context, c Class) error {
	q := g.q
	for first := true; ; first = false {
		q.mu.Lock()
		g.dropDeletedLocked()
		n := len(g.toDelete)
		for n > 0 && c.shares(g.toDelete[n-1].kind.Class) {
			n--
		}
		if n == 0 || c.alone() && int(g.refs) > len(g.toDelete)+1 {
			q.mu.Unlock()
			return nil
		}
		t, last := g.toDelete[n-1], g.lastErr
		changed, refused := t.changedLocked(), t.deletions.refused != nil
		if first && g.flushDueLocked(true) {
			q.flushLocked(g) // the flush under way is somebody else's, and may hang
		}
		q.mu.Unlock()
		if refused {
			return nil //nolint:nilerr // no use waiting; etcd will say what it thinks of this client
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return q.c.Over(ctx, last)
		}
	}
}

// stillHeld asks for the holder that an earlier try found: while it exists it holds, since nobody can come before it.
// It is a read alone. The Txn of enqueueIfFree goes through the log of every member, whether it puts or not, and its
// compare on whole ranges reads all of them.
func (q *Tickets) stillHeld(ctx context.Context, seen *Seen) (*Contender, error) {
	if seen.key == "" {
		return nil, nil //nolint:nilnil // not known to be locked
	}
	var resp *clientv3.GetResponse
	err := q.c.Once(ctx, func(ctx context.Context) (err error) {
		resp, err = q.c.Get(ctx, seen.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	kv := generationOf(resp.Kvs, seen.key, seen.rev)
	if kv == nil {
		*seen = Seen{}
		return nil, nil //nolint:nilnil // as above
	}
	return contender(kv), nil
}

// rounds is how often a ticket is tried that was not in anybody's way when it was looked.
const rounds = 3

// enqueueIfFree puts the tickets only if nobody in the gates of class c was created at the revision below or later: one
// request, which writes no key otherwise. It reads the first limit keys of each gate then, and returns who is in the way. Where
// that cannot be seen in them, because names nest, it is one look more. After some rounds, each spoilt by somebody who came
// after the look, the tickets queue to see.
func (s set) enqueueIfFree(ctx context.Context, c Class, below, limit int64) (*Contender, error) {
	var puts, finds, firsts []clientv3.Op
	var gates []keyRange
	var unput []clientv3.Cmp
	for _, t := range s {
		puts = append(puts, t.put())
		finds = append(finds, clientv3.OpGet(t.key))
		gates = append(gates, c.gates(t.group.prefix)...)
		if !t.kind.Class.alone() { // its gates leave out its own key, and what is sent twice must not put it twice
			unput = append(unput, t.absent())
		}
	}
	for _, gate := range gates {
		firsts = append(firsts, clientv3.OpGet(gate.from, clientv3.WithRange(gate.to), clientv3.WithLimit(limit),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
	}
	orElse, each := append(finds, firsts...), len(gates)/len(s)
	for range rounds {
		free := unput
		for _, gate := range gates {
			free = append(free, clientv3.Compare(clientv3.CreateRevision(gate.from).WithRange(gate.to), "<", below))
		}
		start := lease.Now()
		var resp *clientv3.TxnResponse
		err := s.of().c.Once(ctx, func(ctx context.Context) (err error) {
			resp, err = s.of().c.Txn(ctx).If(free...).Then(puts...).Else(orElse...).Commit()
			return err
		})
		if err != nil {
			return nil, s.refused(err, len(orElse))
		}
		s[0].putAnswered(start, nil)
		if resp.Succeeded {
			for _, t := range s {
				t.placed(resp.Header.Revision)
			}
			return nil, nil //nolint:nilnil // neither locked by another nor failed: they hold
		}
		mine, first := resp.Responses[:len(s)], resp.Responses[len(s):]
		if slices.ContainsFunc(mine, func(r *pb.ResponseOp) bool { return len(r.GetResponseRange().Kvs) > 0 }) { // sent twice
			if !s.found(mine, resp.Header.Revision) {
				return nil, errRequeue
			}
			return s.inTheWay(ctx, s.unseen())
		}
		below = math.MaxInt64
		for i, t := range s {
			by, sure := t.inTheWay(first[i*each:][:each])
			rev := resp.Header.Revision
			if !sure { // look among all keys
				if by, rev, err = t.firstInTheWay(ctx); err != nil {
					return nil, err
				}
			}
			if by != nil {
				return by, nil
			}
			below = min(below, rev+1) // nobody was in the way then, and nobody may come after
		}
	}
	// Below the names keys come and go faster than they can be looked at: the tickets queue as those of a Lock do.
	behind, err := s.enqueue(ctx)
	if err != nil {
		return nil, err
	}
	return s.inTheWay(ctx, behind)
}

// inTheWay returns who is ahead of tickets that are in their queues, and excludes them. behind is what is known of that.
func (s set) inTheWay(ctx context.Context, behind []ahead) (*Contender, error) {
	for i, t := range s {
		if t.holdsBehind(behind[i]) {
			t.all.isFirst(behind[i].rev)
			continue
		}
		by, rev, err := t.firstInTheWay(ctx)
		switch {
		case err != nil:
			return nil, err
		case by == nil: // somebody removed the ticket
			return nil, errRequeue
		case by.Key != t.key || by.Rev != t.rev:
			return by, nil
		}
		t.all.isFirst(rev)
	}
	return nil, nil //nolint:nilnil // as in enqueueIfFree
}

// inTheWay reads the first keys of each gate: who excludes the ticket, and whether that can be told from them.
func (t *Ticket) inTheWay(answers []*pb.ResponseOp) (by *Contender, sure bool) {
	var all []*Contender
	more, hidden := false, false
	for _, r := range answers {
		kvs, nested := r.GetResponseRange().Kvs, false
		for _, kv := range kvs {
			if t.group.direct(string(kv.Key)) {
				all = append(all, contender(kv))
			} else {
				nested = true
			}
		}
		more = more || r.GetResponseRange().More
		hidden = hidden || nested && r.GetResponseRange().More
	}
	slices.SortFunc(all, func(a, b *Contender) int { return int(a.Rev - b.Rev) })
	by = t.excludedBy(all)
	return by, !hidden && (by != nil || !more)
}

// excludedBy is who of these, in the order of the queue, excludes the ticket, nil if nobody does. If the ticket itself is the
// answer, nobody before it does.
func (t *Ticket) excludedBy(all []*Contender) *Contender {
	class := func(c *Contender) (Class, int64) { return Classify(c.Key[len(t.group.prefix):]) }
	before, self := all, slices.IndexFunc(all, func(c *Contender) bool { return c.Key == t.key })
	if self >= 0 {
		before = all[:self]
	}
	n := holders(len(before)+1, func(i int) (Class, int64) {
		if i == len(before) {
			return t.kind.Class, t.kind.Weight
		}
		return class(before[i])
	})
	switch {
	case n > len(before) && self >= 0:
		return all[self]
	case n > len(before):
		return nil
	case n < len(before):
		first, _ := class(before[0])
		if waits, _ := class(before[n]); first == t.kind.Class && waits != first {
			return before[n] // those that hold would let it in, but for this one
		}
	}
	return before[0] // which holds
}

// firstInTheWay lists the queue, and returns the first contender that excludes the ticket and came before it, nil if there
// is none, and what that is as of. It may be the ticket itself.
func (t *Ticket) firstInTheWay(ctx context.Context) (*Contender, int64, error) {
	all, _, rev, err := t.group.List(ctx, t.group.q.c)
	if err != nil {
		return nil, 0, err
	}
	return t.excludedBy(all), rev, nil
}
