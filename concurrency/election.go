package concurrency

import (
	"context"
	"errors"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	v3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// Election elects one leader. A value is one candidate.
type Election struct {
	s    *Session
	name string
	ask  *etcdlock.Election // for questions

	mu   sync.Mutex         // guards what follows; a leaf
	lead *etcdlock.Election // by the session itself
	key  string             // of the ticket that leads, empty when it does not
	rev  int64              // its create revision, or that of the last one
	hdr  *pb.ResponseHeader
}

// NewElection returns an election for the prefix.
func NewElection(s *Session, pfx string) *Election {
	return &Election{s: s, name: pfx, ask: etcdlock.NewElection(s.ask, pfx), lead: etcdlock.NewElection(s.live, pfx)}
}

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

// Campaign waits until this value leads, as long as ctx allows. If it leads already, Campaign proclaims val.
func (e *Election) Campaign(ctx context.Context, val string) error {
	return e.s.on(ctx, func(live *etcdlock.Session, own bool) error {
		l := e.leader()
		if !own {
			l = etcdlock.NewElection(live, e.name)
		}
		defer e.s.calls(e.name)()
		err := e.campaign(ctx, l, val)
		if errors.Is(err, etcdlock.ErrLost) {
			err = ErrSessionExpired
		}
		if err != nil {
			return err
		}
		key, rev := l.Key(), l.Token()
		resp, there, err := e.s.header(ctx, key, rev)
		if err == nil && there {
			e.leads(key, rev)
			e.answered(resp.Header)
			if own {
				e.s.leadsBy(key, l)
			}
			return nil
		}
		e.s.giveBack(key, rev, func() error { return l.Resign(ctx) })
		if err == nil {
			return ErrSessionExpired
		}
		return err
	})
}

func (e *Election) campaign(ctx context.Context, l *etcdlock.Election, val string) error {
	if l.Key() != "" && l.Context().Err() == nil {
		return l.Proclaim(ctx, val)
	}
	err := e.s.takeUp(ctx, e.name, true, func(left etcdlock.Contender) error {
		err := l.Resume(ctx, left.Key, left.Modified)
		if err == nil && left.Identity != val {
			if err = l.Proclaim(ctx, val); err != nil {
				_ = l.Resign(ctx)
			}
		}
		return err
	})
	if errors.Is(err, etcdlock.ErrTaken) {
		return l.Campaign(ctx, val)
	}
	return err
}

// Proclaim changes the leader's value. ErrElectionNotLeader if this value does not lead.
func (e *Election) Proclaim(ctx context.Context, val string) error {
	return e.leading(ctx, func(l *etcdlock.Election, _ bool) error {
		err := l.Proclaim(ctx, val)
		if errors.Is(err, etcdlock.ErrLost) || errors.Is(err, etcdlock.ErrNotLeader) {
			return ErrElectionNotLeader
		}
		return err
	})
}

// Resign steps down, so that another can lead. It is nil if this value does not lead. etcdlock.ErrLost, which etcd's package
// does not have: it had ceased to lead before.
func (e *Election) Resign(ctx context.Context) (err error) {
	err = e.leading(ctx, func(l *etcdlock.Election, own bool) error {
		if own {
			e.s.leadsBy(l.Key(), nil)
		}
		return l.Resign(ctx)
	})
	if errors.Is(err, ErrElectionNotLeader) || errors.Is(err, etcdlock.ErrNotLeader) {
		return nil
	}
	return err
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
	select {
	case e.s.taking <- struct{}{}:
		defer func() { <-e.s.taking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := e.leader()
	if l.Key() == key {
		return l, nil
	}
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

// Leader asks etcd who leads: ErrElectionNoLeader if nobody does. The answer has the leader's key alone.
func (e *Election) Leader(ctx context.Context) (*v3.GetResponse, error) {
	for {
		l, err := e.ask.Leader(ctx)
		if errors.Is(err, etcdlock.ErrNoLeader) {
			return nil, ErrElectionNoLeader
		}
		if err != nil {
			return nil, translated(ctx, err)
		}
		resp, there, err := e.s.header(ctx, l.Key, l.Token)
		if err != nil || there {
			return resp, err
		}
	}
}

// Observe tells who leads, now and with every change, until ctx ends; then the channel is closed. A reader that is slow gets
// the newest. That nobody leads is not told, nor that a leader has written the value again that is there: it does so when it
// takes up its lead. The header of an answer has a revision alone: that of the value.
func (e *Election) Observe(ctx context.Context) <-chan *v3.GetResponse {
	leaders := make(chan *v3.GetResponse)
	go func() {
		defer close(leaders)
		var last etcdlock.Leader
		for l, err := range e.ask.Observe(ctx) {
			if err != nil {
				return
			}
			if l.Key == "" || l.Token == last.Token && l.Value == last.Value {
				continue
			}
			last = l
			kv := &mvccpb.KeyValue{
				Key: []byte(l.Key), Value: []byte(l.Value), Lease: int64(l.Lease),
				CreateRevision: l.Token, ModRevision: l.Modified, Version: l.Version,
			}
			resp := &v3.GetResponse{
				Header: &pb.ResponseHeader{Revision: l.Modified}, Kvs: []*mvccpb.KeyValue{kv}, Count: 1,
			}
			select {
			case leaders <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	return leaders
}

func (e *Election) leader() *etcdlock.Election {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lead
}

func (e *Election) leads(key string, rev int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.s.holds(e.key, key)
	e.key, e.rev = key, rev
}

// resigned forgets one lead, and no later one: the value may have campaigned again by now.
func (e *Election) resigned(key string, rev int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.key == key && e.rev == rev {
		e.s.holds(key, "")
		e.key = ""
	}
}

func (e *Election) answered(hdr *pb.ResponseHeader) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hdr = hdr
}

// Key is the leader's key, empty if this value does not lead.
func (e *Election) Key() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.key
}

// Rev is the create revision of the leader's key.
func (e *Election) Rev() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rev
}

// Header is of an answer of etcd's after the last success.
func (e *Election) Header() *pb.ResponseHeader {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hdr
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
