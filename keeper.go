package etcdlock

import (
	"context"
	"log/slog"
	"time"
)

// This file is the Session's one background loop: keep renews the lease, and gets the next one when it is lost.

// keep runs from NewSession to Close.
func (s *Session) keep(l *lease) {
	for l != nil {
		s.tend(l)
		if s.closing.Err() != nil {
			return
		}
		s.mu.Lock()
		held, trouble := len(l.tickets), s.trouble
		s.mu.Unlock()
		s.opts.log.Warn("etcdlock: lease lost, with every hold under it", leaseAttr(l), "cause", context.Cause(l.ctx),
			"tickets", held, "last trouble", trouble)
		s.bury(l)
		l = s.succeed()
	}
}

// tend renews l every third of its TTL until it is over. Nothing else is done between two renewals: what looks after the
// tickets is started here and runs beside them, however long it takes.
func (s *Session) tend(l *lease) {
	every := l.span() / renewPart
	timer := time.NewTimer(l.due(every)) // counted from the sending of the grant, however late its answer came
	defer timer.Stop()
	for l.ctx.Err() == nil {
		select {
		case <-timer.C:
		case <-s.poke:
		case <-l.ctx.Done():
			return
		}
		s.look(l, false)
		s.renew(l)
		timer.Reset(l.due(every))
	}
}

// look starts what looks after the tickets; all says that the renewal's read does not do it for a few.
func (s *Session) look(l *lease, all bool) {
	if all || s.many(l) {
		s.checks.run(s, func() { s.checkAll(l) })
	}
	if s.suspects(l) {
		s.sweeps.run(s, func() { s.sweep(l) })
	}
}

func (s *Session) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

// bury ends what hung on a lease that is over. Revoking it stops puts that are still under way: they fail for want of
// the lease. It also frees the locks of a lease that etcd has renewed without our knowing; but not before the margin has
// passed, a part of which is for holders that take a moment to stop.
func (s *Session) bury(l *lease) {
	s.mu.Lock()
	keys := l.keysLocked()
	for _, t := range l.tickets {
		t.goneLocked(0, false)
	}
	s.spawnLocked(func() {
		if !sleep(s.back, l.span()/marginPart) {
			return
		}
		ctx, cancel := context.WithTimeout(s.back, l.granted)
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
				s.opts.log.Info("etcdlock: new lease", leaseAttr(l), "ttl", l.granted)
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
