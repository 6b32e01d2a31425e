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
