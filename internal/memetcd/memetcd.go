// Package memetcd is an etcd cluster in memory, with its history, for tests in fake time: the real client does not work
// in a testing/synctest bubble, this server does.
//
// What a client sees of it is what etcd 3.7 answers: revisions and reads of the past, transactions of every kind,
// compaction, leases, watches with etcd's own client code on top, members that lag. A test of this package applies the
// same random requests to both and compares the answers. It differs where a test wants it to: every request passes a
// function that decides what becomes of it on the way (see Verdict), members can be frozen, and everything that was ever
// committed can be read back with the moment and the reason.
//
// It knows no auth, no quota and no snapshot. Progress of watches is told only to those who ask.
package memetcd

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Config is what a cluster can be set to. The zero value is etcd's default.
type Config struct {
	// Members is how many there are, 1 if 0. Requests of a client go to one after the other.
	Members int
	// MaxTxnOps is how many operations a transaction may have, 128 if 0.
	MaxTxnOps int
	// MinTTL is the least TTL in seconds that a lease gets, 2 if 0 as with etcd's default election timeout.
	MinTTL int64
	// Judge decides what becomes of each request. It is called with no lock held; nil lets all pass at once.
	Judge func(Request) Verdict
	// OnCommit is called after each commit, with no lock held, in the order of the commits as far as they follow one
	// another in time.
	OnCommit func(Commit)
}

// Commit is one revision of the store.
type Commit struct {
	Rev    int64
	At     time.Time
	Cause  Cause
	Client int // whose request it was, 0 for nobody's
	Events []*mvccpb.Event
}

// Cause is why something was committed.
type Cause string

// The causes.
const (
	ByRequest  Cause = "request"  // a client's write
	ByRevoke   Cause = "revoke"   // a client's revocation of a lease
	ByExpiry   Cause = "expiry"   // a lease ran out
	ByOperator Cause = "operator" // one of the Server's own methods
)

// Server is the cluster. Its methods may be called by any goroutine. Close it.
type Server struct {
	judging sync.Mutex // lets one question to judge follow another; taken before mu, by way of what judge asks
	cfg     Config
	over    chan struct{} // closed by Close

	mu        sync.Mutex // guards what follows; never held while waiting
	judge     func(Request) Verdict
	rev       int64
	compacted int64
	term      uint64
	index     []string             // every key that the store knows, sorted
	past      map[string][]version // by key, oldest first
	log       []Commit
	leases    map[int64]*lease
	lastLease int64
	members   []*member
	clients   int
	streams   map[*watchStream]struct{}
	ahead     time.Duration // how far the servers' clock is ahead of the caller's
	fresh     []Commit      // committed, and OnCommit not told
}

// version is a key from some revision on; kv is nil where it was deleted.
type version struct {
	rev int64
	kv  *mvccpb.KeyValue
}

// member is what one member of the cluster knows.
type member struct {
	lagging bool
	frozen  bool
	applied int64         // while it lags or is frozen
	awake   chan struct{} // closed by its thaw or when it has caught up
}

// New starts a cluster.
func New(cfg Config) *Server {
	s := &Server{
		cfg: cfg, over: make(chan struct{}), judge: cfg.Judge, rev: 1, term: 2, past: map[string][]version{},
		leases: map[int64]*lease{}, lastLease: 0x1000, streams: map[*watchStream]struct{}{},
	}
	if s.cfg.MaxTxnOps == 0 {
		s.cfg.MaxTxnOps = 128
	}
	if s.cfg.MinTTL == 0 {
		s.cfg.MinTTL = 2
	}
	for range max(cfg.Members, 1) {
		s.members = append(s.members, &member{awake: make(chan struct{})})
	}
	return s
}

// Close ends streams, the clocks of leases, and requests that are still on their way. Clients are their makers' to close.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.over:
		return
	default:
	}
	close(s.over)
	for _, l := range s.leases {
		l.timer.Stop()
	}
	for w := range s.streams {
		w.breakLocked(errAway)
	}
}

// Judge changes who decides about requests from now on. It is asked about one request at a time, and must not wait.
func (s *Server) Judge(judge func(Request) Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.judge = judge
}

// SetMaxTxnOps changes how many operations a transaction may have from now on.
func (s *Server) SetMaxTxnOps(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.MaxTxnOps = n
}

// Rev is the revision of the latest commit.
func (s *Server) Rev() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev
}

// History lists every commit so far, oldest first.
func (s *Server) History() []Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// Key returns what the store has under key at the moment, nil if nothing.
func (s *Server) Key(key string) *mvccpb.KeyValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.getLocked(key, s.rev)
}

// Keys lists what the store has under a prefix at the moment, sorted by key.
func (s *Server) Keys(prefix string) []*mvccpb.KeyValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rangeLocked([]byte(prefix), prefixEnd(prefix), s.rev)
}

func (s *Server) headerLocked(rev int64, member int) *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, MemberId: uint64(member) + 1, Revision: rev, RaftTerm: s.term}
}

// do runs f with mu, and tells OnCommit what it has committed.
func (s *Server) do(f func()) {
	s.mu.Lock()
	f()
	fresh := s.fresh
	s.fresh = nil
	s.mu.Unlock()
	if s.cfg.OnCommit != nil {
		for _, c := range fresh {
			s.cfg.OnCommit(c)
		}
	}
}

// wait sleeps for d; false if ctx or the server ended first.
func (s *Server) wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-s.over:
	}
	return false
}
