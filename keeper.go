package etcdlock

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file is the Session's one background loop: keep renews the lease, and gets the next one when it is lost.

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

// tend renews l every third of its TTL until it is over. Nothing else is done between two renewals: what looks after the
// tickets is started here and runs beside them, however long it takes.
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
		if s.many(l) {
			s.checks.run(s, func() { s.checkAll(l) })
		}
		if s.suspects(l) {
			s.sweeps.run(s, func() { s.sweep(l) })
		}
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

// beat is one renewal. The limit of each of its requests is a tenth of the TTL, so that a member that is frozen is left
// early for another one, and a quarter after a failure: it may have been the path that is slow. Begun at a third of the
// TTL, three attempts end before the deadline. A path that is known to be slow gets more at once.
func (s *Session) beat(l *lease, failed int) error {
	limit := max(l.span()/10, min(2*time.Duration(s.rtt.Load()), l.span()/4))
	if failed > 0 {
		limit = l.span() / 4
	}
	start := now()
	err := l.renew(s.back, s.client, limit, func(ctx context.Context) (*pb.ResponseHeader, error) {
		return s.readForRenewal(ctx, l)
	})
	if err == nil {
		s.rtt.Store(int64(now().sub(start)) / 2)
	}
	return err
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

// succeed gets the next lease, however long it takes; nil when the Session is over.
func (s *Session) succeed() *lease {
	for n := 0; s.closing.Err() == nil; n++ {
		ctx, cancel := context.WithTimeout(s.back, s.patience(n))
		start := now()
		l, err := grant(ctx, s.client, s.opts.ttl)
		cancel()
		if err == nil {
			if s.adopt(l) {
				s.rtt.Store(int64(now().sub(start)))
				s.opts.log.Info("etcdlock: new lease", leaseAttr(l), "ttl", l.ttl)
				return l
			}
			l.end(s.over())
			ctx, cancel := context.WithTimeout(s.back, closeLimit)
			_ = s.revoke(ctx, l, nil) // without keys; it ends by itself
			cancel()
			return nil
		}
		level := slog.LevelDebug
		if s.refuse(err) {
			level = slog.LevelError
		}
		s.opts.log.Log(s.back, level, "etcdlock: no lease granted", "error", err)
		sleep(s.closing, min(50*time.Millisecond<<min(n, 5), time.Second))
	}
	return nil
}

// adopt makes l the Session's lease, unless it came while the Session was ending with the one before.
func (s *Session) adopt(l *lease) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Err() != nil {
		return false
	}
	s.lease, s.trouble, s.refused = l, nil, nil
	s.wakeLocked()
	return true
}

// refuse takes it in that no lease was granted. An error that no retry will mend is told to everybody who waits for the
// lease, now and until there is one; refuse reports whether that is news.
func (s *Session) refuse(err error) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = unanswered(err)
	if transient(err) {
		s.refused = nil
		return false
	}
	news = s.refused == nil
	s.refused = err
	s.wakeLocked()
	return news
}

func (s *Session) wakeLocked() {
	close(s.next)
	s.next = make(chan struct{})
}

func leaseAttr(l *lease) slog.Attr { return slog.String("lease", fmt.Sprintf("%x", l.id)) }
