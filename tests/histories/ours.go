package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the workers that use this library: lockers, candidates and observers.

// held is a hold as its worker sees it.
type held struct {
	name  string
	token int64
	key   string
	by    string // the Session, if it lingers
	class string // with whom it shares
	call  int64  // of the acquisition
	until int64  // its lock stays taken until then
	byBug bool
	ctx   context.Context
	guard func() clientv3.Cmp
	proof func(context.Context) error
}

// mutexes locks and unlocks mu in all the ways there are.
func (w *worker) mutexes(ctx context.Context, mu *etcdlock.Mutex) {
	for w.stop.Err() == nil {
		pause(w.stop, w.between(time.Millisecond, 40*time.Millisecond))
		w.once(ctx, mu)
	}
}

// bursts does so over and over and then leaves mu alone, sometimes for longer than a ticket idles.
func (w *worker) bursts(ctx context.Context, mu *etcdlock.Mutex) {
	for w.stop.Err() == nil {
		for n := 1 + w.rnd.IntN(20); n > 0 && w.stop.Err() == nil; n-- {
			pause(w.stop, w.between(0, 10*time.Millisecond))
			w.once(ctx, mu)
		}
		pause(w.stop, w.between(w.cfg.Linger/4, 4*w.cfg.Linger))
	}
}

// once locks and unlocks mu in one of the ways there are.
func (w *worker) once(ctx context.Context, mu *etcdlock.Mutex) {
	hog := w.cfg.Bug == "hog" // it must come to its next Lock, and others must queue for long
	switch {
	case !hog && w.chance(5):
		w.do(ctx, mu)
	case !hog && w.chance(4):
		lctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, w.cfg.TTL))
		h := w.lock(lctx, mu, "TryLock", mu.TryLock)
		cancel()
		w.section(ctx, h, mu)
	default:
		limit := w.between(5*time.Millisecond, 3*w.cfg.TTL)
		if hog {
			limit = 3 * w.cfg.TTL
		}
		lctx, cancel := context.WithTimeout(ctx, limit)
		h := w.lock(lctx, mu, "Lock", w.bugLock(mu))
		cancel()
		w.section(ctx, h, mu)
	}
}

// lock makes and records one acquisition; nil if it failed.
func (w *worker) lock(ctx context.Context, mu *etcdlock.Mutex, what string, f func(context.Context) error) *held {
	h := &held{name: mu.Name(), by: w.tenant, guard: mu.IsOwner, proof: mu.Verify}
	return w.acquire(ctx, h, what, f, func() (int64, string, context.Context) { return mu.Token(), mu.Key(), mu.Context() })
}

// acquire calls f and records what came of it.
func (w *worker) acquire(ctx context.Context, h *held, what string, f func(context.Context) error,
	got func() (token int64, key string, hold context.Context),
) *held {
	rec := record{Kind: isAcquire, What: what, Worker: w.id, Name: h.name, Tenant: h.by, Class: h.class, Call: clock()}
	err := f(ctx)
	if err == nil {
		rec.Token, rec.Key, h.ctx = got()
	}
	rec.Return = clock()
	rec.Outcome = outcome(ctx, err)
	if due, ok := ctx.Deadline(); ok && ctx.Err() != nil {
		rec.Due = rec.Return + int64(time.Until(due))
	}
	if granted := (*grantedByBug)(nil); errors.As(err, &granted) {
		rec.Token, rec.Key, rec.Outcome = granted.token, granted.key, ""
		h.ctx, h.byBug, h.proof = ctx, true, func(context.Context) error { return nil }
		err = nil
	}
	w.rec.add(rec)
	if err != nil {
		return nil
	}
	h.token, h.key, h.call = rec.Token, rec.Key, rec.Call
	w.alive(h)
	return h
}

// alive asks whether the hold is still good and, if it is, records a moment not later than the question.
func (w *worker) alive(h *held) bool {
	before := clock()
	if h.ctx.Err() != nil {
		return false
	}
	w.rec.add(record{Kind: isAlive, Worker: w.id, Name: h.name, Token: h.token, Call: before})
	return true
}

// work is what is done under a lock: it takes some milliseconds, now and then longer than a lease lives.
func (w *worker) work(ctx context.Context, h *held) {
	d := w.between(time.Millisecond, 20*time.Millisecond)
	switch {
	case w.cfg.Bug == "steal":
		d = w.cfg.TTL / 10 // robbed holders should have some work left
	case w.chance(400):
		d = 2 * w.cfg.TTL
	case w.chance(50):
		d = w.between(w.cfg.TTL/10, w.cfg.TTL/2)
	}
	for until := clock() + int64(d); w.alive(h) && clock() < until && w.stop.Err() == nil; {
		switch {
		case w.chance(25):
			_ = w.call(ctx, w.cfg.TTL/3, record{Kind: isProof, What: "Verify", Name: h.name, Token: h.token}, h.proof)
		case w.chance(25):
			w.guarded(ctx, h, h.guard())
		}
		pause(h.ctx, min(d/4, 20*time.Millisecond)+time.Millisecond)
	}
}

// guarded writes the token where only a holder may.
func (w *worker) guarded(ctx context.Context, h *held, guard clientv3.Cmp) {
	gctx, cancel := context.WithTimeout(ctx, w.cfg.TTL/3)
	defer cancel()
	rec := record{Kind: isGuarded, What: "Txn", Worker: w.id, Name: h.name, Token: h.token, Call: clock()}
	resp, err := w.client.Txn(gctx).If(guard).
		Then(clientv3.OpPut(guardedFor+h.name, token(h.token)+" "+h.class)).Commit()
	rec.Return = clock()
	switch {
	case err != nil:
		rec.Outcome = "unanswered"
	case !resp.Succeeded:
		rec.Outcome = "refused"
	}
	w.rec.add(rec)
}

// section works under h and releases it.
func (w *worker) section(ctx context.Context, h *held, mu *etcdlock.Mutex) {
	if h == nil {
		return
	}
	w.work(ctx, h)
	rctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, w.cfg.TTL))
	var err error
	if w.stays(h) {
		err = w.leave(rctx, h, mu)
	} else {
		err = w.release(rctx, h, record{What: "Unlock"}, w.bugUnlock(h, mu))
	}
	cancel()
	if !h.byBug {
		w.before = h
	}
	if err != nil && w.chance(2) { // asking again reports how the clean-up went; a shared value may be locked by now
		_ = w.call(ctx, w.cfg.TTL, record{Kind: isOther, What: "Holder", Name: h.name}, func(ctx context.Context) error {
			_, err := mu.Holder(ctx)
			return err
		})
	}
}

// release makes and records the end of h, of which rec says how.
func (w *worker) release(ctx context.Context, h *held, rec record, f func(context.Context) error) error {
	rec.Kind, rec.Worker, rec.Name, rec.Token, rec.Call = isEnd, w.id, h.name, h.token, clock()
	err := f(ctx)
	rec.Return = clock()
	rec.Outcome = outcome(ctx, err)
	if due, ok := ctx.Deadline(); ok && ctx.Err() != nil {
		rec.Due = rec.Return + int64(time.Until(due))
	}
	w.rec.add(rec)
	return err
}

// do is lock, work and unlock in one call. The hold is recorded from inside the function: while that runs, the lock is
// held.
func (w *worker) do(ctx context.Context, mu *etcdlock.Mutex) {
	dctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, 3*w.cfg.TTL))
	defer cancel()
	h := &held{name: mu.Name(), guard: mu.IsOwner, proof: mu.Verify, call: clock()}
	var last int64
	err := mu.Do(dctx, func(work context.Context) error {
		h.ctx, h.token = mu.Context(), mu.Token()
		w.rec.add(record{Kind: isAcquire, What: "Do", Worker: w.id, Name: h.name, Call: h.call, Return: clock(),
			Token: h.token, Key: mu.Key(), Tenant: w.tenant})
		h.ctx = work
		w.work(work, h)
		last = clock()
		return nil
	})
	rec := record{Kind: isEnd, What: "Do", Worker: w.id, Name: h.name, Token: h.token, Call: last, Return: clock(),
		Outcome: outcome(dctx, err)}
	if h.token == 0 {
		rec.Kind, rec.Call = isOther, h.call // never held
	}
	w.rec.add(rec)
}

// candidate campaigns, leads and resigns.
func (w *worker) candidate(ctx context.Context, e *etcdlock.Election) {
	for n := 0; w.stop.Err() == nil; n++ {
		pause(w.stop, w.between(5*time.Millisecond, 100*time.Millisecond))
		value := w.id + " " + token(int64(n))
		cctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, 3*w.cfg.TTL))
		h := &held{name: e.Name(), guard: e.IsOwner, proof: e.Verify}
		h = w.acquire(cctx, h, "Campaign", func(ctx context.Context) error { return e.Campaign(ctx, value) },
			func() (int64, string, context.Context) { return e.Token(), e.Key(), e.Context() })
		cancel()
		if h == nil {
			continue
		}
		if w.chance(3) {
			_ = w.call(ctx, w.cfg.TTL/3, record{Kind: isOther, What: "Proclaim", Name: h.name},
				func(ctx context.Context) error { return e.Proclaim(ctx, value+" again") })
		}
		w.work(ctx, h)
		rctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, w.cfg.TTL))
		_ = w.release(rctx, h, record{What: "Resign"}, e.Resign)
		cancel()
	}
}

// observer records every state it is shown, in order.
func (w *worker) observer(e *etcdlock.Election) {
	var before etcdlock.Leader
	for l, err := range e.Observe(w.stop) {
		rec := record{Kind: isObserve, What: "Observe", Worker: w.id, Name: e.Name(), Call: clock(),
			Token: l.Token, Key: l.Key, Value: l.Value}
		if err != nil {
			rec.Outcome = outcome(w.stop, err)
		}
		w.rec.add(rec)
		if w.cfg.Bug == "rewind" && before.Token != 0 && l.Token > before.Token && w.chance(5) {
			rec.Token, rec.Key, rec.Value = before.Token, before.Key, before.Value
			w.rec.add(rec)
		}
		before = l
	}
}
