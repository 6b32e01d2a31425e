package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"
)

// This file has what those do that campaign, and those that ask.

// electOnce campaigns in one way or another, leads and steps down. A value is used by one goroutine at a time: after a
// loss another's Campaign would take it over.
func (w *world) electOnce(r *rand.Rand) {
	sl, _, e := w.pick(r)
	ctx, cancel := w.patience(r, 1)
	defer cancel()
	if !w.campaigns(e) {
		return
	}
	defer w.campaigned(e)
	if r.IntN(4) == 0 {
		w.runOnce(ctx, r, sl, e)
		return
	}
	c := w.calling(ctx, sl.id, "Campaign %s %p", e.name, e)
	err := e.Campaign(ctx, "c0")
	w.returned(c, err)
	if err != nil {
		return
	}
	b := w.believe(sl, e.name, e.Context(), e.Token(), e.Key(), false)
	w.lead(r, sl, e, b)
	w.resign(r, sl, e, b)
}

// campaigns begins to use a value; false if somebody does.
func (w *world) campaigns(e *Election) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	busy := w.busy[e]
	w.busy[e] = true
	return !busy
}

func (w *world) campaigned(e *Election) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, e)
}

func (w *world) resign(r *rand.Rand, sl *slot, e *Election, b *belief) {
	rctx, rcancel := w.patience(r, 5)
	defer rcancel()
	l := leaseOf(e.held())
	w.end(b)
	c := w.byDeadline(w.calling(rctx, sl.id, "Resign %s %p", e.name, e), l)
	if l == nil {
		c.by(time.Now().Add(w.ttl), "a TTL")
	}
	err := e.Resign(rctx)
	w.returned(c, err)
	w.judgeRelease(b, "Resign", err)
}

func (w *world) runOnce(ctx context.Context, r *rand.Rand, sl *slot, e *Election) {
	c := w.calling(context.Background(), sl.id, "Run %s %p", e.name, e)
	err := e.Run(ctx, "c0", func(context.Context) error {
		b := w.believes(&belief{slot: sl, name: e.name, ctx: e.Context(), token: e.Token(), key: e.Key(), fn: true})
		w.lead(r, sl, e, b)
		w.end(b)
		return nil
	})
	w.returned(c, err)
}

// lead is the time as the leader.
func (w *world) lead(r *rand.Rand, sl *slot, e *Election, b *belief) {
	for range r.IntN(5) {
		if r.IntN(3) > 0 {
			w.proclaim(r, sl, e, b)
		} else {
			w.work(r, b, e.Verify, one(e.IsOwner))
		}
		runtime.Gosched()
	}
}

// proclaims is what one ticket's leader has proclaimed.
type proclaims struct {
	asked     int // the number of the last one
	confirmed int // the number of the last one that was confirmed
}

func (w *world) proclaim(r *rand.Rand, sl *slot, e *Election, b *belief) {
	ctx, cancel := w.patience(r, 0)
	defer cancel()
	w.mu.Lock()
	p := w.proclaims[b.id()]
	if p == nil {
		p = &proclaims{}
		w.proclaims[b.id()] = p
	}
	p.asked++
	n := p.asked
	w.mu.Unlock()
	c := w.calling(ctx, sl.id, "Proclaim %s@%d p%d", e.name, b.token, n)
	err := e.Proclaim(ctx, fmt.Sprintf("p%d", n))
	w.returned(c, err)
	if err != nil {
		return
	}
	kv := w.etcd.Key(b.key)
	w.mu.Lock()
	defer w.mu.Unlock()
	p.confirmed = n
	if kv != nil && kv.CreateRevision == b.token && string(kv.Value) != fmt.Sprintf("p%d", n) {
		w.violateLocked("a confirmed Proclaim is not in force", "s%d %s@%d: p%d, and the store has %s", sl.id, e.name, b.token, n, kv.Value)
	}
}

// askOnce asks who holds and leads, or observes for a while.
func (w *world) askOnce(r *rand.Rand) {
	sl, m, e := w.pick(r)
	ctx, cancel := w.patience(r, 0)
	defer cancel()
	switch r.IntN(4) {
	case 0:
		c := w.calling(ctx, sl.id, "Holder %s", m.name)
		_, err := m.Holder(ctx)
		w.returned(c, err)
	case 1:
		c := w.calling(ctx, sl.id, "Waiters %s", m.name)
		_, err := m.Waiters(ctx)
		w.returned(c, err)
	case 2:
		c := w.calling(ctx, sl.id, "Leader %s", e.name)
		_, err := e.Leader(ctx)
		w.returned(c, err)
	case 3:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(w.stop, cancel)()
		c := w.calling(ctx, sl.id, "Observe %s", e.name)
		var last int64
		var end error
		for l, err := range e.Observe(ctx) {
			if end = err; err != nil {
				break
			}
			if l.Token != 0 && l.Token < last {
				w.violate("Observe goes backwards", "s%d %s: %d after %d", sl.id, e.name, l.Token, last)
			}
			last = max(last, l.Token)
		}
		w.returned(c, end)
		if end == nil || ctx.Err() == nil && !errors.Is(end, ErrClosed) && !w.may(traitFinal) && !w.closed(sl) {
			w.violate("Observe ends without a reason", "s%d %s: %v", sl.id, e.name, end)
		}
	}
}
