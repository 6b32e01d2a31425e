package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// The names that are fought over. One nests in another, so that a history also shows that they are different locks.
// etcd's own package takes the names below another for the same queue, so its clients stay away from the outer one.
const (
	root       = "histories/"
	outer      = root + "a"
	nested     = root + "a/b"
	plain      = root + "c"
	election   = root + "e"
	shared     = root + "r" // an RWMutex
	pool       = root + "p" // a Semaphore
	seldom     = root + "l" // where Sessions linger: one takes it over and over, the others seldom
	guardedFor = "guarded/" // + name: what the guarded transactions write
)

var mutexNames = []string{outer, nested, plain, shared, pool}

// namesOf are the names of a run's Mutexes.
func namesOf(linger time.Duration) []string {
	names := append(mutexNames[:len(mutexNames):len(mutexNames)], staying)
	if linger > 0 {
		names = append(names, seldom)
	}
	return names
}

// machineConfig is what a machine is told; it may be a process of its own.
type machineConfig struct {
	ID        string
	Seed      uint64
	Endpoints []string
	TTL       time.Duration
	Linger    time.Duration // of the first Session
	Foreign   bool          // clients of etcd's concurrency package, none of ours
	Bug       string
}

// machine is one client machine: one etcd client, two Sessions, and the goroutines that share them.
type machine struct {
	cfg      machineConfig
	rec      *recorder
	client   *clientv3.Client
	sessions []*etcdlock.Session
	stop     context.Context // over when the workers are to come to an end
	wg       sync.WaitGroup
}

// run works until stop is over, then takes every lock once more: whatever happened before, it must be possible.
func (cfg machineConfig) run(ctx, stop context.Context, rec *recorder) error {
	if cfg.Foreign {
		return runForeign(ctx, stop, cfg, rec)
	}
	client, err := cluster.NewClient(cfg.Endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()
	m := &machine{cfg: cfg, rec: rec, client: client, stop: stop}
	for i := range 2 {
		s, err := m.open(ctx, i)
		if err != nil {
			return fmt.Errorf("machine %s: %w", cfg.ID, err)
		}
		if s == nil {
			return nil
		}
		defer s.Close()
		m.sessions = append(m.sessions, s)
	}
	for i, name := range mutexNames {
		if name == pool { // a Mutex takes all of it
			m.start(name+" all", 0, func(w *worker) { w.mutexes(ctx, etcdlock.NewMutex(m.sessions[0], name)) })
			continue
		}
		shared := etcdlock.NewMutex(m.sessions[0], name)
		m.start(name+" shared", 0, func(w *worker) { w.mutexes(ctx, shared) })
		m.start(name+" shared too", 0, func(w *worker) { w.mutexes(ctx, shared) })
		m.start(name+" own", i%2, func(w *worker) { w.mutexes(ctx, etcdlock.NewMutex(m.sessions[i%2], name)) })
	}
	both := etcdlock.NewRWMutex(m.sessions[0], shared)
	for i := range 3 {
		m.start(fmt.Sprintf("%s reader %d", shared, i), 0, func(w *worker) { w.readers(ctx, both) })
	}
	m.start(shared+" own reader", 1, func(w *worker) { w.readers(ctx, etcdlock.NewRWMutex(m.sessions[1], shared)) })
	m.start(shared+" writer", 0, func(w *worker) { w.mutexes(ctx, &both.Mutex) })
	for i := range 4 {
		s := m.sessions[i%2]
		m.start(fmt.Sprintf("%s permits %d", pool, i), i%2, func(w *worker) { w.permits(ctx, s, permits) })
	}
	m.start(pool+" of another mind", 1, func(w *worker) { w.permits(ctx, m.sessions[1], permits-1) })
	for i, s := range m.sessions {
		m.start(fmt.Sprintf("sets %d", i), i, func(w *worker) { w.sets(ctx, s) })
	}
	m.start(staying, 0, func(w *worker) {
		for mu := etcdlock.NewMutex(m.sessions[0], staying); w.stop.Err() == nil; {
			w.patient(ctx, mu)
		}
	})
	m.start(staying+" passing", 1, func(w *worker) { w.passing(ctx) })
	if cfg.Linger > 0 {
		m.start(seldom, 0, func(w *worker) { w.bursts(ctx, etcdlock.NewMutex(m.sessions[0], seldom)) })
	}
	for i, s := range m.sessions {
		m.start(fmt.Sprintf("candidate %d", i), i, func(w *worker) { w.candidate(ctx, etcdlock.NewElection(s, election)) })
	}
	m.start("observer", 0, func(w *worker) { w.observer(etcdlock.NewElection(m.sessions[0], election)) })
	m.wg.Wait()
	if cfg.Bug != "" {
		return nil // what a broken lock leaves behind may well be in the way
	}
	return m.lastLap(ctx)
}

// open opens a Session, however long that takes under the faults; nil once the run is over.
func (m *machine) open(ctx context.Context, i int) (*etcdlock.Session, error) {
	for m.stop.Err() == nil {
		octx, cancel := context.WithTimeout(ctx, 2*time.Second)
		s, err := etcdlock.NewSession(octx, m.client, etcdlock.WithTTL(m.cfg.TTL),
			etcdlock.WithIdentity(m.identity(i)), etcdlock.WithLinger(m.lingerOf(i)))
		cancel()
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil, nil //nolint:nilnil // the run ended first
}

func (m *machine) identity(i int) string { return fmt.Sprintf("%s.%d", m.cfg.ID, i) }

// lingerOf lets the first Session linger, so that such Sessions meet others.
func (m *machine) lingerOf(i int) time.Duration {
	if i == 0 {
		return m.cfg.Linger
	}
	return 0
}

// lastLap locks each name once, with no faults left: every Session must have healed, and no ghost be in the way.
func (m *machine) lastLap(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 6*m.cfg.TTL)
	defer cancel()
	for i, s := range m.sessions {
		w := m.worker(fmt.Sprintf("last lap %d", i), i)
		for _, name := range namesOf(m.cfg.Linger) {
			mu := etcdlock.NewMutex(s, name)
			h := w.lock(ctx, mu, "Lock", mu.Lock)
			if h == nil {
				return fmt.Errorf("machine %s: %s cannot be locked after the last fault", m.cfg.ID, name)
			}
			_ = w.release(ctx, h, record{What: "Unlock"}, mu.Unlock) // recorded either way
		}
	}
	return nil
}

// worker is one goroutine with its own source of chance.
type worker struct {
	*machine
	id     string
	tenant string // its Session, if that lingers
	rnd    *rand.Rand
	before *held // the last true one, for the bugs
}

// worker makes one that uses the Session i.
func (m *machine) worker(id string, i int) *worker {
	id = m.cfg.ID + " " + id
	seed := m.cfg.Seed
	for _, b := range []byte(id) {
		seed = seed*1099511628211 + uint64(b)
	}
	w := &worker{machine: m, id: id, rnd: rand.New(rand.NewPCG(m.cfg.Seed, seed))}
	if m.lingerOf(i) > 0 {
		w.tenant = m.identity(i)
	}
	return w
}

func (m *machine) start(id string, i int, f func(*worker)) {
	w := m.worker(id, i)
	m.wg.Go(func() { f(w) })
}

// chance is true once in n times.
func (w *worker) chance(n int) bool { return w.rnd.IntN(n) == 0 }

// between is a duration that is more often near the lower bound.
func (w *worker) between(lo, hi time.Duration) time.Duration {
	f := w.rnd.Float64()
	return lo + time.Duration(f*f*f*float64(hi-lo))
}

// call makes one call with a context of its own and records when its context ended, if it did.
func (w *worker) call(ctx context.Context, limit time.Duration, rec record, f func(context.Context) error) error {
	cctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	rec.Worker, rec.Call = w.id, clock()
	err := f(cctx)
	rec.Return = clock()
	rec.Outcome = outcome(cctx, err)
	if cctx.Err() != nil {
		rec.Due = rec.Call + int64(limit)
	}
	w.rec.add(rec)
	return err
}

// pause waits for d or until ctx is over.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
