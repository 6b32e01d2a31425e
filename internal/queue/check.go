package queue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file asks etcd, once per third of the TTL, whether the tickets are still there. The read that a renewal rests on
// does that for a few of them. For more it stays as small as for none, since nothing may stand between two renewals,
// and the tickets are checked beside it.

const (
	// Few is how many tickets the renewal's own read asks for.
	Few = 16
	// checkPace is the time from the sending of one part of many checks to the next, so that a server which has
	// nothing else to do spends about a quarter of one core on 100,000 tickets while they last, and not all at once.
	checkPace = 2 * time.Millisecond
	// checksOut is how many parts may be without an answer.
	checksOut = 64
)

// probe is a question about one key: does the generation that was created at rev still exist?
type probe struct {
	key   string
	rev   int64
	t     *Ticket
	ahead bool // the key is not t's own, but that of the ticket which t waits for
	// written: it exists, and somebody else wrote it last, as far as is known
	written bool
}

// gone takes it in that the generation does not exist, as of revision at, or may be another Session's.
func (p probe) gone(at int64) {
	switch {
	case p.ahead:
		p.t.recheckNow()
	case p.written:
		p.t.group.q.tasks.Go(p.t.lookWhose)
	default:
		p.t.Removed(at)
	}
}

// probes lists what is to be checked: each ticket that is known to be in etcd, and, for a ticket that waits for a ticket
// of another Session, that one.
func (q *Tickets) probes(l *Lease) []probe {
	q.mu.Lock()
	defer q.mu.Unlock()
	probes := make([]probe, 0, len(l.tickets))
	for _, t := range l.tickets {
		if !t.liveLocked() {
			continue
		}
		probes = append(probes, probe{key: t.key, rev: t.rev, t: t})
		if t.turn != nil && t.turn.near.key != "" {
			probes = append(probes, probe{key: t.turn.near.key, rev: t.turn.near.rev, t: t, ahead: true})
		}
	}
	return probes
}

// check asks all probes in one linearizable read, and returns those whose generation is gone, or was written by
// somebody else.
func (q *Tickets) check(ctx context.Context, probes []probe) (hdr *pb.ResponseHeader, gone []probe, err error) {
	ops := make([]clientv3.Op, len(probes))
	for i, p := range probes {
		ops[i] = clientv3.OpGet(p.key, clientv3.WithKeysOnly())
	}
	resp, err := q.c.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, p := range probes {
		kv := generationOf(resp.Responses[i].GetResponseRange().Kvs, p.key, p.rev)
		if p.written = kv != nil && !p.ahead && kv.ModRevision > p.t.mod && p.t.state != staying; kv == nil || p.written {
			gone = append(gone, p)
		}
	}
	return resp.Header, gone, nil
}

// checkParts checks in as many requests as it takes, each repeated until it is answered or ctx ends.
func (q *Tickets) checkParts(ctx context.Context, probes []probe) {
	err := rpc.InParts(q.c, q.c.PartSize, probes, func(part []probe) error {
		_, err := rpc.Retry(ctx, q.c, func(ctx context.Context) (*pb.ResponseHeader, error) {
			hdr, gone, err := q.check(ctx, part)
			for _, p := range gone {
				p.gone(hdr.Revision)
			}
			return hdr, err
		})
		return err
	})
	if err != nil && ctx.Err() == nil {
		q.log.Error("etcdlock: checking tickets", "error", err)
	}
}

// ReadForRenewal is the linearizable read of a renewal. With a few tickets it checks them too. A read that etcd refuses
// gives way to one that asks for less, so that no key that is too much, or that may not be read any more, costs the lease.
func (q *Tickets) ReadForRenewal(ctx context.Context, l *Lease) (*pb.ResponseHeader, error) {
	if !q.many(l) {
		if probes := q.probes(l); len(probes) > 0 {
			hdr, gone, err := q.check(ctx, probes)
			if len(gone) > 0 || err != nil && !rpc.Transient(err) {
				q.checks.Run(q.tasks, func() { q.checkAll(l) })
			}
			if err == nil || rpc.Transient(err) {
				return hdr, err
			}
		}
	}
	return q.Read(ctx)
}

// Read is a linearizable read of as little as can be.
func (q *Tickets) Read(ctx context.Context) (*pb.ResponseHeader, error) {
	q.mu.Lock()
	key := q.readable
	q.mu.Unlock()
	resp, err := q.c.Get(ctx, key, clientv3.WithKeysOnly())
	switch {
	case err == nil:
		return resp.Header, nil
	case !errors.Is(err, rpctypes.ErrPermissionDenied):
		return nil, err
	}
	// No key is known that this client may read: the list of members needs no permission and is as linearizable (save
	// on 3.4, which did not offer that yet).
	members, err := q.c.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	return members.Header, nil
}

// many reports whether the tickets are too many for the renewal's read.
func (q *Tickets) many(l *Lease) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(l.tickets) > Few
}

// StartChecks starts what has to be done for the tickets once per renewal. It runs beside the renewals, however long it takes. all
// says that the renewal's read does not do it for a few.
func (q *Tickets) StartChecks(l *Lease, all bool) {
	if all || q.many(l) {
		q.checks.Run(q.tasks, func() { q.checkAll(l) }) // beside it
	}
	q.mu.Lock()
	late := l.names.late
	q.mu.Unlock()
	if late {
		q.sweeps.Run(q.tasks, func() { q.sweep(l) })
	}
}

// checkAll checks every ticket once: the longest in etcd first, so that each has its turn at the same time of every
// round. The parts go out at a steady pace, whether or not the ones before have been answered.
func (q *Tickets) checkAll(l *Lease) {
	every := l.Span() / 3
	probes := q.probes(l)
	slices.SortFunc(probes, func(a, b probe) int { return int(a.rev - b.rev) })
	size := q.c.PartSize()
	pace := min(checkPace, every*3/4*time.Duration(size)/time.Duration(max(len(probes), 1)))
	out := make(chan struct{}, checksOut)
	var wg sync.WaitGroup
	defer wg.Wait()
	for part := range slices.Chunk(probes, size) {
		select {
		case out <- struct{}{}:
		case <-l.Context().Done():
			return
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(l.Context(), every)
			q.checkParts(ctx, part)
			cancel()
			<-out
		})
		rpc.Sleep(l.Context(), pace)
	}
}
