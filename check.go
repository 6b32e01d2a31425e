package etcdlock

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file asks etcd, once per third of the TTL, whether the tickets are still there. The read that a renewal rests on
// does that for a few of them. For more it stays as small as for none, since nothing may stand between two renewals,
// and the tickets are checked beside it.

const (
	// few is how many tickets the renewal's own read asks for.
	few = 16
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
	t     *ticket
	ahead bool // the key is not t's own, but that of the ticket which t waits for
}

// gone takes it in that the generation does not exist, as of revision at.
func (p probe) gone(at int64) {
	if p.ahead {
		p.t.nudge()
	} else {
		p.t.removed(at)
	}
}

// probes lists what is to be checked: each ticket that is known to be in etcd, and, for a ticket that waits for a ticket
// of another Session, that one.
func (s *Session) probes(l *lease) []probe {
	s.mu.Lock()
	defer s.mu.Unlock()
	probes := make([]probe, 0, len(l.tickets))
	for _, t := range l.tickets {
		if t.state != waiting && t.state != held && t.state != idle {
			continue
		}
		probes = append(probes, probe{t.key, t.rev, t, false})
		if t.state == waiting && t.ahead.key != "" {
			probes = append(probes, probe{t.ahead.key, t.ahead.rev, t, true})
		}
	}
	return probes
}

// check asks all probes in one linearizable read, and returns those whose generation is gone.
func (s *Session) check(ctx context.Context, probes []probe) (hdr *pb.ResponseHeader, gone []probe, err error) {
	ops := make([]clientv3.Op, len(probes))
	for i, p := range probes {
		ops[i] = clientv3.OpGet(p.key, clientv3.WithKeysOnly())
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, nil, err
	}
	for i, p := range probes {
		if !hasKey(resp.Responses[i].GetResponseRange().Kvs, p.key, p.rev) {
			gone = append(gone, p)
		}
	}
	return resp.Header, gone, nil
}

// checkParts checks in as many requests as it takes, each repeated until it is answered or ctx ends.
func (s *Session) checkParts(ctx context.Context, probes []probe) {
	err := inParts(s, probes, func(part []probe) error {
		return s.ask(ctx, func(ctx context.Context) error {
			hdr, gone, err := s.check(ctx, part)
			for _, p := range gone {
				p.gone(hdr.Revision)
			}
			return err
		})
	})
	if err != nil && ctx.Err() == nil {
		s.opts.log.Error("etcdlock: checking tickets", "error", err)
	}
}

// readForRenewal is the linearizable read of a renewal. With a few tickets it checks them too. A read that etcd refuses
// gives way to one that asks for less, so that no key that is too much, or that may not be read any more, costs the lease.
func (s *Session) readForRenewal(ctx context.Context, l *lease) (*pb.ResponseHeader, error) {
	if !s.many(l) {
		if probes := s.probes(l); len(probes) > 0 {
			hdr, gone, err := s.check(ctx, probes)
			if len(gone) > 0 || err != nil && !transient(err) {
				s.checks.run(s, func() { s.checkAll(l) })
			}
			if err == nil || transient(err) {
				return hdr, err
			}
		}
	}
	s.mu.Lock()
	key := s.probe
	s.mu.Unlock()
	resp, err := s.client.Get(ctx, key, clientv3.WithKeysOnly())
	switch {
	case err == nil:
		return resp.Header, nil
	case !errors.Is(err, rpctypes.ErrPermissionDenied):
		return nil, err
	}
	// No key is known that this client may read: the list of members needs no permission and is as linearizable (save
	// on 3.4, which did not offer that yet).
	members, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, err
	}
	return members.Header, nil
}

// many reports whether the tickets are too many for the renewal's read.
func (s *Session) many(l *lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(l.tickets) > few
}

// checkAll checks every ticket once: the longest in etcd first, so that each has its turn at the same time of every
// round. The parts go out at a steady pace, whether or not the ones before have been answered.
func (s *Session) checkAll(l *lease) {
	every := l.span() / renewPart
	probes := s.probes(l)
	slices.SortFunc(probes, func(a, b probe) int { return int(a.rev - b.rev) })
	size := s.partSize()
	pace := min(checkPace, every*3/4*time.Duration(size)/time.Duration(max(len(probes), 1)))
	out := make(chan struct{}, checksOut)
	var wg sync.WaitGroup
	defer wg.Wait()
	for part := range slices.Chunk(probes, size) {
		select {
		case out <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(l.ctx, every)
			s.checkParts(ctx, part)
			cancel()
			<-out
		})
		sleep(l.ctx, pace)
	}
}

// aside runs one kind of work beside the renewals: one run at a time. What is asked for during a run begins after it,
// since that run may have passed by already what it is asked for.
type aside struct {
	mu      sync.Mutex // guards what follows
	running bool
	next    func()
}

func (a *aside) run(s *Session, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = f
	if !a.running {
		a.running = true
		s.spawn(a.work)
	}
}

func (a *aside) work() {
	for {
		a.mu.Lock()
		f := a.next
		a.next, a.running = nil, f != nil
		a.mu.Unlock()
		if f == nil {
			return
		}
		f()
	}
}
