package concurrency

import (
	"context"
	"errors"
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
