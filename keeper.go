package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file is the Session's one background loop: keep renews the lease, uses the read before each renewal to check
// that the tickets are still there, and gets the next lease when one is lost.

// maxOps is how many operations etcd takes in one Txn by default.
const maxOps = 128

// keep runs from NewSession to Close.
func (s *Session) keep(l *lease) {
	for l != nil {
		s.tend(l)
		if s.closing.Err() != nil {
			return
		}
		s.opts.log.Warn("etcdlock: lease lost, with every hold under it", leaseAttr(l), "cause", context.Cause(l.ctx))
		s.bury(l)
		l = s.succeed()
	}
}

// tend renews l every third of its TTL until it is over.
func (s *Session) tend(l *lease) {
	every := l.span() / 3
	timer := time.NewTimer(l.due(every)) // counted from the sending of the grant, however late its answer came
	defer timer.Stop()
	for failed := 0; ; {
		select {
		case <-timer.C:
		case <-s.poke:
		case <-l.ctx.Done():
			return
		}
		start := now()
		err := s.beat(l, failed)
		s.mu.Lock()
		s.trouble = unanswered(err)
		s.mu.Unlock()
		if err == nil {
			failed = 0
			timer.Reset(l.due(every))
			continue
		}
		if l.ctx.Err() != nil {
			return
		}
		failed++
		level := slog.LevelDebug
		if !transient(err) {
			level = slog.LevelError // no later attempt will fare better without an operator
		}
		s.opts.log.Log(s.back, level, "etcdlock: renewal failed", leaseAttr(l), "left", l.left(), "error", err)
		// A server that refuses at once is not asked in a tight loop; a time limit has been wait enough.
		timer.Reset(max(max(l.span()/30, 20*time.Millisecond)-now().sub(start), 0))
	}
}

// beat is one renewal with its checks. The limit of each of its requests is a tenth of the TTL, so that a member that
// is frozen is left early for another one, and a quarter after a failure: it may have been the path that is slow. Begun
// at a third of the TTL, three attempts end before the deadline. A path that is known to be slow gets more at once.
func (s *Session) beat(l *lease, failed int) error {
	limit := max(l.span()/10, min(2*time.Duration(s.rtt.Load()), l.span()/4))
	if failed > 0 {
		limit = l.span() / 4
	}
	start := now()
	probes := s.probes(l)
	first := probes[:min(len(probes), maxOps)]
	err := l.renew(s.back, s.client, limit, func(ctx context.Context) (*pb.ResponseHeader, error) {
		hdr, err := s.check(ctx, first)
		if errors.Is(err, rpctypes.ErrPermissionDenied) && first[0].gone == nil {
			// Nothing is queued, and no key is known that this client may read: the list of members needs no
			// permission and is as linearizable (save on 3.4, which did not offer that yet).
			resp, merr := s.client.MemberList(ctx)
			if merr != nil {
				return nil, merr
			}
			return resp.Header, nil
		}
		return hdr, err
	})
	if err != nil {
		return err
	}
	s.rtt.Store(int64(now().sub(start)) / 2)
	for rest := probes[len(first):]; len(rest) > 0; {
		chunk := rest[:min(len(rest), maxOps)]
		rest = rest[len(chunk):]
		ctx, cancel := context.WithTimeout(s.back, limit)
		_, err := s.check(ctx, chunk)
		cancel()
		if err != nil {
			return fmt.Errorf("checking tickets: %w", err)
		}
	}
	s.mu.Lock()
	suspect := l.suspect
	s.mu.Unlock()
	if suspect {
		s.sweep(l, limit)
	}
	return nil
}

// probe is a question about one key: does the generation that was created at rev still exist?
type probe struct {
	key  string
	rev  int64
	gone func(at int64) // called without mu when it does not, as of revision at; nil if nobody asks
}

// probes lists what the renewal's read asks: each ticket that is known to be in etcd, and, for a ticket that waits for
// a ticket of another session, that one. Without tickets it names some key that this client may read.
func (s *Session) probes(l *lease) []probe {
	s.mu.Lock()
	defer s.mu.Unlock()
	probes := make([]probe, 0, len(l.tickets)+1)
	for _, t := range l.tickets {
		if t.state != waiting && t.state != held && t.state != idle {
			continue
		}
		probes = append(probes, probe{t.key, t.rev, t.removed})
		if t.state == waiting && t.ahead.key != "" {
			probes = append(probes, probe{t.ahead.key, t.ahead.rev, func(int64) { t.nudge() }})
		}
	}
	if len(probes) == 0 {
		probes = append(probes, probe{key: s.probe})
	}
	return probes
}

// check asks all probes in one linearizable read.
func (s *Session) check(ctx context.Context, probes []probe) (*pb.ResponseHeader, error) {
	ops := make([]clientv3.Op, len(probes))
	for i, p := range probes {
		ops[i] = clientv3.OpGet(p.key, clientv3.WithKeysOnly())
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	for i, p := range probes {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if p.gone != nil && (len(kvs) == 0 || kvs[0].CreateRevision != p.rev) {
			p.gone(resp.Header.Revision)
		}
	}
	return resp.Header, nil
}

// bury ends what hung on a lease that is over. Revoking it frees the locks earlier than its own end would, and stops
// puts that are still under way: they fail for want of the lease.
func (s *Session) bury(l *lease) {
	s.mu.Lock()
	keys := l.keysLocked()
	for _, t := range l.tickets {
		t.goneLocked(0)
	}
	s.spawnLocked(func() {
		ctx, cancel := context.WithTimeout(s.back, l.ttl)
		defer cancel()
		if err := s.revoke(ctx, l, keys); err != nil {
			s.opts.log.Debug("etcdlock: revoking a lost lease", leaseAttr(l), "error", err)
		}
	})
	s.mu.Unlock()
}

// succeed gets the next lease, however long it takes; nil when the Session closes or the client is closed.
func (s *Session) succeed() *lease {
	for n := 0; s.closing.Err() == nil && s.client.Ctx().Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(s.back, s.patience(n))
		start := now()
		l, err := grant(ctx, s.client, s.opts.ttl)
		cancel()
		s.mu.Lock()
		s.trouble = unanswered(err)
		if err == nil && s.closing.Err() == nil {
			s.rtt.Store(int64(now().sub(start)))
			s.lease = l
			close(s.next)
			s.next = make(chan struct{})
			s.mu.Unlock()
			s.opts.log.Info("etcdlock: new lease", leaseAttr(l), "ttl", l.ttl)
			return l
		}
		s.mu.Unlock()
		if err == nil { // granted while Close was at work on the lease before
			l.end(ErrClosed)
			ctx, cancel := context.WithTimeout(s.back, closeLimit)
			_ = s.revoke(ctx, l, nil) // without keys; it ends by itself
			cancel()
			return nil
		}
		s.opts.log.Debug("etcdlock: no lease granted", "error", err)
		pause, cancel := context.WithCancel(s.back)
		unhook := context.AfterFunc(s.closing, cancel)
		sleep(pause, min(50*time.Millisecond<<min(n, 5), time.Second))
		unhook()
		cancel()
	}
	return nil
}

func leaseAttr(l *lease) slog.Attr { return slog.String("lease", fmt.Sprintf("%x", l.id)) }
