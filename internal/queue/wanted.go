package queue

import (
	"cmp"
	"context"
	"slices"
)

// This file tells a holder that somebody waits for it. Queueing is the request, so there is no other protocol: whoever waits
// is in the queue, and a mirror of it shows that.

// wants are the holds of a Session and a name that ask.
type wants struct {
	tickets []*Ticket
	cancel  context.CancelFunc // ends the mirror
}

// Wanted returns a channel that is closed once somebody waits behind the hold, whom it keeps waiting. It is never closed if
// the hold ends before.
func (t *Ticket) Wanted() <-chan struct{} {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.want == nil {
		told := make(chan struct{})
		for _, t := range t.set() {
			if t.want = told; t.state == held {
				t.group.wantLocked(t)
			}
		}
	}
	return t.want
}

// wantLocked has the mirror of the queue tell t, too.
func (g *group) wantLocked(t *Ticket) {
	q := g.q
	if g.wants == nil {
		ctx, cancel := context.WithCancel(q.tasks.Back())
		w := &wants{cancel: cancel}
		if !q.tasks.Go(func() { g.mirrorWaiters(ctx, w) }) {
			cancel()
			return
		}
		g.wants = w
	}
	g.wants.tickets = append(g.wants.tickets, t)
}

// mirrorWaiters tells the tickets of w, until ctx ends, or etcd refuses for good: whoever asks then has another one.
func (g *group) mirrorWaiters(ctx context.Context, w *wants) {
	q := g.q
	m := &mirror{q: q, keys: g.Keys}
	m.changed = func(bool) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if !m.told() || !g.waitersLocked(w, m.contenders) {
			return
		}
		for _, t := range slices.Clone(w.tickets) {
			if c := m.contenders[t.key]; c != nil && c.Rev == t.rev {
				t.wantedLocked()
			}
		}
	}
	err := m.run(ctx)
	if ctx.Err() != nil {
		return
	}
	q.log.Error("etcdlock: watching who waits", "name", Short(g.Name), "error", err)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, asked := range slices.Clone(w.tickets) {
		asked.unwantLocked()
	}
}

// waitersLocked reports whether somebody waits in the queue. The holders are the first so many, and all of them are in the way
// of whoever is next: of another class than theirs, or too heavy beside them. What is ahead of a hold that nobody shares is the
// ticket from which that came in memory, whose deletion is not confirmed.
func (g *group) waitersLocked(w *wants, all map[string]*Contender) bool {
	first := int64(0)
	for _, t := range w.tickets {
		if t.kind.Class.alone() {
			first = t.rev
		}
	}
	queue := make([]*Contender, 0, len(all))
	for _, c := range all {
		if c.Rev >= first {
			queue = append(queue, c)
		}
	}
	slices.SortFunc(queue, func(a, b *Contender) int { return cmp.Compare(a.Rev, b.Rev) })
	return g.holders(queue) < len(queue)
}

// wantedLocked tells the holder of t, once, unless the hold has ended otherwise than by its release.
func (t *Ticket) wantedLocked() {
	for _, o := range t.set() {
		o.unwantLocked()
	}
	if !t.hold.Lost() {
		close(t.want)
	}
}

// unwantLocked says that t need not be told any more. Nobody else has the mirror's context, so it may be cancelled here.
func (t *Ticket) unwantLocked() {
	w := t.group.wants
	if w == nil {
		return
	}
	w.tickets = slices.DeleteFunc(w.tickets, func(o *Ticket) bool { return o == t })
	if len(w.tickets) == 0 {
		w.cancel()
		t.group.wants = nil
	}
}
