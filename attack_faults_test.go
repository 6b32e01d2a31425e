package etcdlock

import (
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// This file has what happens to requests.

// weather is what the requests of one client meet for a while.
type weather struct {
	name string
	// hits decides about a request; ok is false if nothing happens to it.
	hits func(w *world, r *rand.Rand, q memetcd.Request) (v memetcd.Verdict, ok bool)
	heal chan struct{} // closed when it is over
}

var errBusy = status.Error(codes.DeadlineExceeded, "somebody in between has lost patience")

// lossy does something to one request in six.
func lossy(w *world, r *rand.Rand, q memetcd.Request) (v memetcd.Verdict, ok bool) {
	if r.IntN(6) > 0 {
		return v, false
	}
	late := time.Millisecond + some(r, w.ttl)
	switch n := r.IntN(9); n {
	case 0:
		v.Lost = true
	case 1, 2:
		v.Delay = late
	case 3:
		v.AnswerLost = true
	case 4:
		v.AnswerDelay = late
	case 5:
		// A ticket's put that comes again after it was answered may bring the ticket back, and nobody is told: the
		// documentation says so (docs/safety.md, part 7). So its sender hears nothing, and looks after it.
		v.Again, v.AnswerLost = []time.Duration{late}, puts(q)
	case 6:
		v.Refuse, v.Delay = status.Error(codes.Unavailable, "etcdserver: no leader"), 5*time.Millisecond
	case 7:
		v.AnswerError, v.AnswerDelay = errBusy, 5*time.Millisecond
	case 8:
		v.Again, v.AnswerAgain = []time.Duration{some(r, w.ttl/10)}, q.Kind == memetcd.Txn
		v.AnswerLost = v.AnswerAgain
	}
	return v, true
}

// weathers are the kinds, each with the trait that lets it be.
func (w *world) weathers() (all []weather) {
	add := func(trait uint64, name string, hits func(w *world, r *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool)) {
		if w.may(trait) {
			all = append(all, weather{name: name, hits: hits})
		}
	}
	add(traitLossy, "lossy", lossy)
	add(traitOutage, "away", func(_ *world, r *rand.Rand, _ memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Lost: r.IntN(4) > 0, Delay: -1}, true // what is not lost arrives at the end
	})
	add(traitOutage, "refused", func(_ *world, _ *rand.Rand, _ memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Refuse: status.Error(codes.Unavailable, "connection refused"), Delay: 5 * time.Millisecond}, true
	})
	add(traitStall, "writes stall", func(_ *world, _ *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Delay: -1}, q.Write
	})
	add(traitStall, "writes are lost", func(_ *world, _ *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Lost: true}, q.Write
	})
	add(traitStall, "keepalives fail", func(_ *world, r *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Lost: true}, q.Kind == memetcd.KeepAlive
	})
	add(traitMembers, "keepalives by a leader that was deposed", func(_ *world, _ *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Hollow: true}, q.Kind == memetcd.KeepAlive
	})
	add(traitSlow, "slow", func(w *world, r *rand.Rand, _ memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{Delay: some(r, w.ttl/8), AnswerDelay: some(r, w.ttl/8)}, true
	})
	add(traitSlow, "slow answers to writes", func(w *world, r *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{AnswerDelay: some(r, w.ttl)}, q.Write
	})
	add(traitStreams, "watches say nothing", func(_ *world, _ *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		return memetcd.Verdict{AnswerLost: true}, q.Kind == memetcd.Watch
	})
	add(traitFinal, "full", func(_ *world, r *rand.Rand, q memetcd.Request) (memetcd.Verdict, bool) {
		put := q.Kind == memetcd.Grant || q.Kind == memetcd.Txn && q.Write && puts(q)
		return memetcd.Verdict{Refuse: rpctypes.ErrGRPCNoSpace, Delay: time.Millisecond}, put
	})
	return all
}

// blow changes the weather of one client again and again.
func (w *world) blow(r *rand.Rand) {
	kinds := w.weathers()
	if len(kinds) == 0 {
		return
	}
	for w.pause(some(r, w.ttl)) {
		w.mu.Lock()
		c := w.clients[1+r.IntN(len(w.clients))]
		we := kinds[r.IntN(len(kinds))]
		we.heal = make(chan struct{})
		c.weather = we
		w.logLocked("client %d: %s", c.id, we.name)
		w.mu.Unlock()
		w.pause(some(r, 2*w.ttl))
		w.mu.Lock()
		w.healLocked(c)
		w.mu.Unlock()
	}
}

func (w *world) healLocked(c *attackClient) {
	if c.weather.heal != nil {
		w.logLocked("client %d: well again", c.id)
		close(c.weather.heal)
		c.weather = weather{}
		c.fault = maxTime(c.fault, time.Now())
	}
}

// judge decides about one request.
func (w *world) judge(q memetcd.Request) memetcd.Verdict {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.clients[q.Client]
	if c == nil {
		return memetcd.Verdict{}
	}
	clean := memetcd.Verdict{}
	if w.rtt > 0 {
		clean.Delay = time.Duration(c.random.Int64N(int64(w.rtt)))
		clean.AnswerDelay = w.rtt - clean.Delay
	}
	v, ok := memetcd.Verdict{}, false
	if !w.calm && c.weather.hits != nil {
		v, ok = c.weather.hits(w, c.random, q)
	}
	if !w.frozen[q.Member].IsZero() {
		w.uncleanLocked(c, q, w.frozen[q.Member])
	}
	if !ok {
		return clean
	}
	arrives := time.Now()
	if v.Delay < 0 {
		v.Delay, v.Hold = clean.Delay, c.weather.heal
	}
	for _, d := range append(v.Again, 0) {
		arrives = maxTime(arrives, time.Now().Add(v.Delay+d+v.AnswerDelay))
	}
	w.uncleanLocked(c, q, arrives)
	w.logLocked("  client %d: %s %s: %s", c.id, q.Kind, shortKeys(q.Keys), verdict(v))
	return v
}

// uncleanLocked notes that something has happened to a request.
func (w *world) uncleanLocked(c *attackClient, q memetcd.Request, until time.Time) {
	c.fault = maxTime(c.fault, until)
	w.late = maxTime(w.late, until)
	if q.Write {
		for _, key := range q.Keys {
			w.unclean[key] = maxTime(w.unclean[key], time.Now())
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
