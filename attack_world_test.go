package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// world is one schedule: the cluster, its clients and Sessions, and what is known about them.
type world struct {
	seed    uint64
	ttl     time.Duration
	rtt     time.Duration // of a request that nothing happens to
	length  time.Duration // of the time of faults
	linger  time.Duration // the longest
	traits  uint64        // what may happen in this schedule
	members int
	slept   atomic.Int64 // how long the machine was suspended
	etcd    *memetcd.Server
	begin   time.Time
	stop    context.Context // over when the time of faults is
	halt    context.CancelFunc

	mu         sync.Mutex // guards what follows; taken before the library's, never while calling it
	log        []string
	violations []violation
	slots      []*slot
	heard      []*heard
	clients    map[int]*attackClient
	running    map[*call]struct{}
	beliefs    map[*belief]struct{}
	tickets    map[ticketID]*ticketFate
	proclaims  map[ticketID]*proclaims
	tokens     map[string]int64 // the greatest of a hold of each name
	using      map[*Mutex]int   // how many goroutines use a value
	busy       map[*Election]bool
	closing    map[*Session]bool
	frozen     map[int]time.Time    // until when a member is
	unclean    map[string]time.Time // when something happened to a request that writes this key
	leftEarly  map[int]time.Time    // when a call of this slot last did not wait for an answer
	asleep     time.Time            // when the machine was last suspended
	slowest    time.Duration        // of the round trips that a Session has measured
	stays      map[ticketID]*stayed // of holds that were given back with UnlockAfter
	queues     map[string]*lined    // of the names that several primitives share
	numbers    map[string]int64     // the greatest token of each number of a semaphore
	sets       []*belief            // the holds that LockAll has returned, one for each name
	left       left                 // by Sessions that have ended
	calm       bool
	late       time.Time // when the last request that is under way arrives
}

// attackClient is one etcd client and its weather.
type attackClient struct {
	id      int
	client  *clientv3.Client
	cancel  context.CancelFunc
	random  *rand.Rand // of its judge, guarded by the world's mu
	weather weather
	fault   time.Time // until when its requests have not been what they should be
	closed  bool
}

// slot is the place of one Session, and of the values made on it.
type slot struct {
	id     int
	client *attackClient
	s      *Session
	linger time.Duration
	locks  []*Mutex
	leads  []*Election
	reads  []*RWMutex
	sems   []*Semaphore
	margin time.Duration
	given  clientv3.LeaseID // what its next Session is given, if not 0
}

var (
	lockNames  = []string{"a", "a/b", "b", "both"}
	leaderName = []string{"e", "e/f", "both"}
)

// The traits, each in every other schedule or so: one with few of them is easier to read.
const (
	traitOperator = 1 << iota
	traitForeign
	traitMembers
	traitStreams
	traitCompact
	traitSuspend
	traitReopen
	traitElections
	traitLossy
	traitOutage
	traitStall
	traitSlow
	traitFinal
	traitLinger
	traitSlowAdopt
	traitOneName
	traitFamily
	traitMargin
	traitGiven
)

func newWorld(seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 0))
	w := &world{
		seed:    seed,
		ttl:     []time.Duration{2, 3, 6, 15}[r.IntN(4)] * time.Second,
		rtt:     []time.Duration{0, 100 * time.Microsecond, time.Millisecond, 20 * time.Millisecond}[r.IntN(4)],
		traits:  r.Uint64() | r.Uint64()&r.Uint64(),
		members: 1 + 2*r.IntN(2),
		clients: map[int]*attackClient{}, running: map[*call]struct{}{}, beliefs: map[*belief]struct{}{},
		tokens: map[string]int64{}, using: map[*Mutex]int{}, busy: map[*Election]bool{}, closing: map[*Session]bool{}, frozen: map[int]time.Time{}, unclean: map[string]time.Time{}, leftEarly: map[int]time.Time{},
		tickets: map[ticketID]*ticketFate{}, proclaims: map[ticketID]*proclaims{},
		stays: map[ticketID]*stayed{}, queues: map[string]*lined{}, numbers: map[string]int64{}, left: newLeft(),
	}
	w.length = w.ttl * time.Duration(2+r.IntN(5))
	return w
}

func (w *world) may(trait uint64) bool { return w.traits&^*attackOff&trait != 0 }

// run is the whole schedule, in its bubble.
func (w *world) run() {
	r := rand.New(rand.NewPCG(w.seed, 1))
	w.begin = time.Now()
	w.etcd = memetcd.New(memetcd.Config{Members: w.members, Judge: w.judge, OnCommit: w.committed})
	w.stop, w.halt = context.WithTimeout(context.Background(), w.length)
	defer w.halt()
	w.logf("ttl %v, rtt %v, %d members, traits %b", w.ttl, w.rtt, w.members, w.traits)
	var client *attackClient
	for i := range 2 + r.IntN(3) {
		if client == nil || r.IntN(2) == 0 {
			client = w.newClient(r)
		}
		sl := &slot{id: i, client: client}
		if w.may(traitLinger) && r.IntN(2) == 0 {
			n := 1 + r.IntN(1000)
			sl.linger = time.Duration(n) * time.Millisecond
			if n%4 == 0 { // through the loss of a lease
				sl.linger *= 100
			}
			w.linger = max(w.linger, sl.linger)
		}
		if w.may(traitMargin) && r.IntN(2) == 0 {
			sl.margin = time.Duration(r.Int64N(int64(w.ttl / 4)))
		}
		w.open(sl, r)
		w.slots = append(w.slots, sl)
	}
	var actors, forces sync.WaitGroup
	w.act(r, &actors)
	w.force(r, &forces)
	forces.Go(w.watchOver)
	<-w.stop.Done()
	w.finish(&actors, &forces)
}

// newClient makes an etcd client. Sessions may share one.
func (w *world) newClient(r *rand.Rand) *attackClient {
	ctx, cancel := context.WithCancel(context.Background())
	c := &attackClient{client: w.etcd.Client(ctx), cancel: cancel, random: rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.id = len(w.clients) + 1
	w.clients[c.id] = c
	return c
}

// open gives a slot its next Session; false if none was granted.
func (w *world) open(sl *slot, r *rand.Rand) bool {
	ctx, cancel := context.WithTimeout(context.Background(), w.ttl)
	defer cancel()
	c := w.calling(ctx, sl.id, "NewSession")
	told := &heard{slot: sl, ttl: w.ttl, holds: map[ticketID]int{}, sets: map[ticketID]int{}}
	opts := []Option{WithTTL(w.ttl), WithIdentity(fmt.Sprintf("s%d", sl.id)), WithLinger(sl.linger), WithMargin(sl.margin), WithHooks(told.hooks())}
	if given := sl.given; given != clientv3.NoLease {
		opts = append(opts, WithLease(given))
		w.mu.Lock()
		w.left.given[int64(given)] = true
		w.logLocked("s%d is given %x", sl.id, given)
		w.mu.Unlock()
	}
	s, err := NewSession(ctx, sl.client.client, opts...)
	w.returned(c, err)
	if err != nil {
		if errors.Is(err, ErrLeaseLost) || w.stop.Err() != nil {
			sl.given = clientv3.NoLease
		}
		return false
	}
	sl.given = clientv3.NoLease
	locks, leads := []*Mutex{}, []*Election{}
	for _, name := range lockNames {
		for range 1 + r.IntN(2) {
			locks = append(locks, NewMutex(s, name))
		}
	}
	reads, sems := w.family(s)
	for _, m := range reads {
		locks = append(locks, &m.Mutex)
	}
	for _, name := range leaderName {
		leads = append(leads, NewElection(s, name))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	sl.s, sl.locks, sl.leads, sl.reads, sl.sems = s, locks, leads, reads, sems
	told.s = s
	w.left.of[s] = writer{int64(s.Lease()), sl.client.id}
	w.heard = append(w.heard, told)
	return true
}

// pick returns a slot's value, and the Session that it is of.
func (w *world) pick(r *rand.Rand) (sl *slot, m *Mutex, e *Election) {
	w.mu.Lock()
	defer w.mu.Unlock()
	sl = w.slots[r.IntN(len(w.slots))]
	m, e = sl.locks[r.IntN(len(sl.locks))], sl.leads[r.IntN(len(sl.leads))]
	if w.may(traitOneName) {
		m = sl.locks[r.IntN(min(2, len(sl.locks)))]
		e = sl.leads[0]
	}
	return sl, m, e
}

func (w *world) logf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logLocked(format, args...)
}

func (w *world) logLocked(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%12.6f  ", time.Since(w.begin).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) violate(kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violateLocked(kind, format, args...)
}

func (w *world) violateLocked(kind, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.violations = append(w.violations, violation{kind, text})
	first, _, _ := strings.Cut(text, "\n")
	w.logLocked("!!! %s: %s", kind, first)
}

// story is the log of the schedule: calls, commits and faults in fake time.
func (w *world) story() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "\n") + "\n"
}

// pause sleeps, cut short by the end of the faults.
func (w *world) pause(d time.Duration) bool { return rpc.Sleep(w.stop, d) && w.stop.Err() == nil }

// some returns a duration up to d, mostly a short one.
func some(r *rand.Rand, d time.Duration) time.Duration {
	f := r.Float64()
	return time.Duration(f * f * f * float64(d))
}
