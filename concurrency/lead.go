package concurrency

import (
	"context"
	"errors"
	"strings"

	"github.com/etcdlock/etcdlock"
)

// This file has by which value of the library a session leads: one that campaigned, or one that has taken up a lead that was
// resumed, or that the session had when it was orphaned.

// ResumeElection returns an election in which leaderKey, created at leaderRev, leads for this session. It asks nothing of
// etcd: Proclaim and Resign take the lead up. The name of the election is the one that the key is under.
func ResumeElection(s *Session, pfx string, leaderKey string, leaderRev int64) *Election {
	if i := strings.LastIndexByte(leaderKey, '/'); i > 0 {
		pfx = leaderKey[:i]
	}
	e := NewElection(s, pfx)
	e.key, e.rev = leaderKey, leaderRev
	if lead := s.leading(leaderKey); lead != nil && lead.Token() == leaderRev {
		e.lead = lead // this session has it
	}
	return e
}

// leading calls f with the value of the library that leads for this one; it takes up the lead for that where the session has
// been orphaned, or the lead resumed.
func (e *Election) leading(ctx context.Context, f func(l *etcdlock.Election, own bool) error) error {
	key, rev := e.Key(), e.Rev()
	if key == "" {
		return ErrElectionNotLeader
	}
	err := e.s.on(ctx, func(live *etcdlock.Session, own bool) (err error) {
		l := etcdlock.NewElection(live, e.name)
		if own {
			l, err = e.leaderOf(ctx, key, rev)
		} else {
			err = e.resume(ctx, l, key, rev)
		}
		if err != nil {
			return err
		}
		return f(l, own)
	})
	resp, there, herr := e.s.header(ctx, key, rev)
	if herr == nil {
		e.answered(resp.Header)
	}
	if herr == nil && !there || errors.Is(err, ErrElectionNotLeader) {
		e.resigned(key, rev)
	}
	return err
}

// leaderOf is the value of the library by which this session has the lead; it takes up one that was resumed. One take-up at a
// time: for another value of this session, or another call, it is the same lead.
func (e *Election) leaderOf(ctx context.Context, key string, rev int64) (*etcdlock.Election, error) {
	if l := e.leader(); l.Key() == key {
		return l, nil
	}
	select {
	case e.s.taking <- struct{}{}:
		defer func() { <-e.s.taking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := e.leader()
	if has := e.s.leading(key); has != nil && has.Token() == rev {
		l = has
	} else if err := e.resume(ctx, l, key, rev); err != nil {
		return nil, err
	}
	e.s.leadsBy(key, l)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lead = l
	return l, nil
}

// resume takes up the lead that this value is known to have. If the answer to the claim was lost, the lead has changed, and is
// looked at again, see takeUp.
func (e *Election) resume(ctx context.Context, l *etcdlock.Election, key string, rev int64) error {
	seen := int64(0)
	for {
		now, err := e.ask.Leader(ctx)
		switch {
		case err != nil && !errors.Is(err, etcdlock.ErrNoLeader):
			return err
		case err != nil, now.Key != key, now.Token != rev, now.Modified == seen:
			return ErrElectionNotLeader
		}
		if err = l.Resume(ctx, key, now.Modified); !errors.Is(err, etcdlock.ErrTaken) {
			return err
		}
		seen = now.Modified
	}
}

// leading is the value by which the session leads with that key, nil if there is none.
func (s *Session) leading(key string) *etcdlock.Election {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leads[key]
}

func (s *Session) leadsBy(key string, l *etcdlock.Election) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l == nil {
		delete(s.leads, key)
	} else {
		s.leads[key] = l
	}
}
