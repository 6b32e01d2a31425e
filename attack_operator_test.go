package etcdlock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// This file has what is done to the cluster, the machine and the Sessions.

// force starts everything that is not a caller.
func (w *world) force(r *rand.Rand, forces *sync.WaitGroup) {
	for range 1 + r.IntN(2) {
		own := rand.New(rand.NewPCG(r.Uint64(), 5))
		forces.Go(func() { w.blow(own) })
	}
	deeds := w.deeds()
	own := rand.New(rand.NewPCG(r.Uint64(), 6))
	if len(deeds) > 0 {
		forces.Go(func() {
			for w.pause(some(own, w.ttl)) {
				deeds[own.IntN(len(deeds))](own)
			}
		})
	}
	if w.may(traitReopen) {
		own := rand.New(rand.NewPCG(r.Uint64(), 7))
		forces.Go(func() {
			for w.pause(some(own, 4*w.ttl)) {
				w.reopen(own)
			}
		})
	}
}

// deeds lists what operators and the weather of the cluster may do in this schedule.
func (w *world) deeds() (all []func(r *rand.Rand)) {
	add := func(trait uint64, deeds ...func(r *rand.Rand)) {
		if w.may(trait) {
			all = append(all, deeds...)
		}
	}
	deleteOne := func(r *rand.Rand) {
		if kvs := w.etcd.Keys(""); len(kvs) > 0 {
			key := string(kvs[r.IntN(len(kvs))].Key)
			w.logf("operator: delete %s", key)
			w.etcd.Delete(key)
		}
	}
	add(traitOperator, deleteOne, deleteOne, deleteOne, func(r *rand.Rand) {
		prefix := append(lockNames, leaderName...)[r.IntN(len(lockNames)+len(leaderName))] + "/"
		w.logf("operator: delete everything under %s", prefix)
		w.etcd.DeletePrefix(prefix)
	}, func(r *rand.Rand) {
		if ids := w.etcd.Leases(); len(ids) > 0 && r.IntN(2) == 0 {
			id := ids[r.IntN(len(ids))]
			w.logf("operator: revoke %x", id)
			w.etcd.Revoke(id)
		}
	})
	add(traitForeign, func(r *rand.Rand) {
		leaves := []string{"foreign-%d"}
		if w.may(traitFamily) {
			leaves = append(leaves, "read-by-hand-%d", "of-3-by-hand-%d", "of-3-w2-a-1%d", "of-3-slot/%d", "read-%d/below")
		}
		key := lockNames[r.IntN(3)] + "/" + fmt.Sprintf(leaves[r.IntN(len(leaves))], r.IntN(3))
		w.logf("operator: put %s", key)
		w.etcd.Put(key, "foreign", 0)
		w.pause(some(r, w.ttl))
		w.etcd.Delete(key)
	})
	add(traitMembers, func(r *rand.Rand) {
		i, do, what := r.IntN(w.members), w.etcd.Freeze, "freezes"
		if r.IntN(2) == 0 {
			do, what = w.etcd.Lag, "lags"
		}
		w.logf("member %d %s", i, what)
		w.mu.Lock()
		w.frozen[i] = time.Now().Add(some(r, w.ttl))
		until := w.frozen[i]
		for _, c := range w.clients {
			c.fault = maxTime(c.fault, until)
		}
		w.mu.Unlock()
		do(i)
		w.pause(time.Until(until))
		w.etcd.Thaw(i)
		w.mu.Lock()
		delete(w.frozen, i)
		w.mu.Unlock()
		w.logf("member %d is well again", i)
	}, func(*rand.Rand) {
		w.logf("election")
		w.etcd.Elect()
	})
	add(traitStreams, func(*rand.Rand) {
		w.logf("streams break")
		w.etcd.BreakStreams(0)
	}, func(*rand.Rand) {
		w.logf("streams say nothing more")
		w.etcd.MuteStreams(0)
	})
	add(traitCompact, func(r *rand.Rand) {
		rev := w.etcd.Rev() - r.Int64N(3)
		w.logf("compaction at %d", rev)
		w.etcd.Compact(rev)
	})
	add(traitSuspend, func(r *rand.Rand) {
		d := some(r, 2*w.ttl)
		w.logf("the machine sleeps for %v", d)
		w.mu.Lock()
		w.asleep = time.Now()
		w.mu.Unlock()
		w.slept.Add(int64(d))
		w.etcd.Advance(d)
	})
	return all
}

// reopen closes a Session, or the client under it, and opens the next one in its place.
func (w *world) reopen(r *rand.Rand) {
	w.mu.Lock()
	sl := w.slots[r.IntN(len(w.slots))]
	s, client := sl.s, sl.client
	users := 0
	for _, o := range w.slots {
		if o.client == client {
			users++
		}
	}
	w.mu.Unlock()
	if users == 1 && r.IntN(2) == 0 {
		w.logf("client %d is closed", client.id)
		w.mu.Lock()
		client.closed = true
		w.mu.Unlock()
		client.cancel()
		w.pause(some(r, w.ttl))
		client = w.newClient(r)
	}
	if r.IntN(2) == 0 {
		w.shutdown(r, sl, s)
	}
	w.mu.Lock()
	had := sl.client
	w.mu.Unlock()
	if w.may(traitGiven) && r.IntN(2) == 0 {
		w.orphan(sl, s, had)
		if r.IntN(2) == 0 {
			w.rush(r, writer{int64(s.Lease()), had.id})
		}
	} else {
		w.close(sl, s)
		w.hasEnded(s, had)
	}
	if w.may(traitGiven) {
		if sl.given = w.give(r, s, client); sl.given != clientv3.NoLease && client == had {
			client = w.newClient(r)
		}
	}
	w.mu.Lock()
	sl.client = client
	w.mu.Unlock()
	for !w.open(sl, r) {
	}
	if w.may(traitGiven) && r.IntN(2) == 0 {
		w.pause(some(r, w.ttl))
		w.tidyUp()
	}
}

// shutdown gives those who hold some time to finish.
func (w *world) shutdown(r *rand.Rand, sl *slot, s *Session) {
	w.mu.Lock()
	w.closing[s] = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), some(r, 2*w.ttl))
	defer cancel()
	c := w.calling(ctx, sl.id, "Shutdown")
	err := s.Shutdown(ctx)
	w.returned(c, err)
	if s.leases.current().Context().Err() == nil {
		w.violate("goes on", "s%d after Shutdown: %v", sl.id, err)
	}
}

// close closes a Session, which nobody's work may hold up for longer than its deadline.
func (w *world) close(sl *slot, s *Session) {
	w.mu.Lock()
	w.closing[s] = true
	w.mu.Unlock()
	c := w.calling(context.Background(), sl.id, "Close").by(time.Now().Add(w.closes(s)), "the bound of Close")
	err := s.Close()
	w.returned(c, err)
}

// closed reports whether a slot's Session, or its client, has been closed at any time.
func (w *world) closed(sl *slot) bool { return w.may(traitReopen) || w.over(sl) }

func (w *world) over(sl *slot) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closing[sl.s]
}

// puts reports whether a transaction creates a key.
func puts(q memetcd.Request) bool {
	r, ok := q.Body.(*pb.TxnRequest)
	for _, op := range append(r.GetSuccess(), r.GetFailure()...) {
		if op.GetRequestPut() != nil {
			return ok
		}
	}
	return false
}

func shortKeys(keys []string) string {
	if len(keys) > 3 {
		keys = keys[:3]
	}
	return strings.Join(keys, " ")
}

// verdict words a verdict for the log.
func verdict(v memetcd.Verdict) string {
	var words []string
	add := func(cond bool, format string, args ...any) {
		if cond {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(v.Lost, "lost")
	add(v.Hold != nil, "held")
	add(v.Delay > 0, "arrives after %v", v.Delay)
	add(v.Refuse != nil, "refused: %v", v.Refuse)
	add(len(v.Again) > 0, "again after %v", v.Again)
	add(v.AnswerAgain, "whose answer counts")
	add(v.AnswerLost && !v.AnswerAgain, "answer lost")
	add(v.AnswerDelay > 0, "answered after %v", v.AnswerDelay)
	add(v.AnswerError != nil, "answered: %v", v.AnswerError)
	add(v.Hollow, "acknowledged, and not done")
	return strings.Join(words, ", ")
}
