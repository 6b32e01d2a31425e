package etcdlock

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file judges whether a hold ends when it has to, and only then.

// watchOver looks for holds that do not notice their end, all the time.
func (w *world) watchOver() {
	for w.pause(w.ttl / 30) {
		w.judgeNotice()
		w.mu.Lock()
		beliefs := slices.Collect(maps.Keys(w.beliefs))
		w.mu.Unlock()
		for _, b := range beliefs {
			w.judgeLoss(b)
			w.judgeWanted(b)
		}
		w.mu.Lock()
		for _, sl := range w.slots {
			w.slowest = max(w.slowest, sl.s.client.RoundTrip())
		}
		w.mu.Unlock()
	}
}

// judgeNotice: a hold whose ticket others have removed ends within TTL/3 and a round trip, while etcd can be reached.
// After a fault the renewal under way, of a read and two keepalives of a quarter of the TTL each, has to end first.
func (w *world) judgeNotice() {
	w.mu.Lock()
	var late, phantoms []*belief
	for b := range w.beliefs {
		removed := w.fateLocked(b.id()).removed
		if removed == nil || b.client.closed || b.late {
			continue
		}
		// One that had gone before its turn came is looked after at once.
		if c := b.client; b.phantom != "" && c.fault.Add(w.ttl).Before(b.began) && time.Since(b.began) > queue.CheckAfter+2*w.rtt+time.Millisecond {
			phantoms = append(phantoms, b)
		}
		since := removed.At
		if c := b.client; !c.fault.IsZero() && c.fault.Add(w.ttl).After(since) {
			since = maxTime(since, c.fault.Add(w.ttl))
		}
		if time.Since(since) > w.ttl/3+2*w.rtt+w.ttl/10 {
			late = append(late, b)
		}
	}
	w.mu.Unlock()
	for _, b := range phantoms {
		if live := b.ctx.Err() == nil; live {
			w.violate(b.phantom, "%v: removed %v", b, w.fate(b.id()).removed)
			w.mu.Lock()
			b.phantom = ""
			w.mu.Unlock()
		}
	}
	for _, b := range late {
		if b.ctx.Err() != nil {
			continue
		}
		w.mu.Lock()
		if _, there := w.beliefs[b]; there {
			b.late = true
			w.violateLocked("a removal is not noticed", "%v: removed %v", b, w.fateLocked(b.id()).removed)
		}
		w.mu.Unlock()
	}
}

// phantomLocked tells whether a hold begins whose ticket had gone by the time the one ahead of it went.
func (w *world) phantomLocked(b *belief) string {
	own := w.fateLocked(b.id()).removed
	if own == nil {
		return ""
	}
	var ahead ticketID
	one := []*belief{b}
	if b.set != nil { // whose hold begins with the last turn of them all
		one = *b.set
	}
	for id, f := range w.tickets {
		after := (f.removed == nil || f.removed.Rev >= own.Rev) && (id.class() != b.id().class() || id.class() == queue.Exclusive)
		for _, o := range one {
			leaf, under := strings.CutPrefix(id.key, o.name+"/")
			if under && !strings.Contains(leaf, "/") && id.rev < b.token && id.rev > ahead.rev && after {
				ahead = id
			}
		}
	}
	switch {
	case ahead.rev == 0:
		return ""
	case ahead.lease() == b.id().lease():
		return "a phantom by handoff lasts"
	}
	return "a phantom lasts"
}

// judgeLoss looks whether a hold that is over had to be: its ticket is in the store, and its lease lives.
func (w *world) judgeLoss(b *belief) {
	if b.ctx.Err() == nil || !errors.Is(context.Cause(b.ctx), ErrLost) {
		return
	}
	hold, ok := b.ctx.(*lease.Hold)
	alive := ok && hold.Lease().Alive()
	if alive && w.isThere(b) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !b.killed {
			b.killed = true
			kind := "a live hold was ended"
			if w.left.given[int64(hold.Lease().ID)] && !w.unclean[b.key].Before(b.began) {
				// The second copy of a Proclaim finds another's writing, for all that can be told on a lease that others use.
				kind = "lost by a repetition"
			}
			w.violateLocked(kind, "%v", b)
		}
	}
}
