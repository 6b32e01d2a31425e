package etcdlock

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file judges: what the library tells against what the store has had.

// guarded is where writes under a guard go.
const guarded = "guarded/"

// ticketID is one generation of a key.
type ticketID struct {
	key string
	rev int64
}

// ticketFate is what became of a ticket.
type ticketFate struct {
	removed *memetcd.Commit // nil while it is in the store
	lost    *belief         // the hold that was lost while it was there, if that is noted
}

// belief is a hold as its holder knows it, from the return of the call that took it to the call that gives it back.
type belief struct {
	slot    *slot
	client  *attackClient
	name    string
	ctx     context.Context
	token   int64
	key     string
	mutex   bool
	ended   time.Time
	live    bool   // whether it was alive when it was given back
	late    bool   // whether it has been found not to notice its end
	phantom string // how it began although its ticket had gone before the one ahead of it had, if it did
	began   time.Time
	since   int64 // what the store had when it began, at least
	killed  bool  // whether it has been found over, and need not have been

	fn      bool // whether it is of Do or Run, and a function works under it
	resumed bool // whether it was taken up
	passed  bool // whether another has taken it up

	set    *[]*belief      // the holds that are one with this one, if there are any; guarded by the world's mu
	wanted <-chan struct{} // what it was told who waits, if it has asked
	asked  time.Time       // when
	number string          // the number that it has of a semaphore, if any
	over   time.Time       // when its context ended, if that is noted
}

func (b *belief) id() ticketID { return ticketID{b.key, b.token} }

func (b *belief) String() string {
	return fmt.Sprintf("s%d's hold of %s@%d", b.slot.id, b.name, b.token)
}

// lease is the part of a ticket's key that names its lease.
func (id ticketID) lease() string {
	parts := strings.Split(id.leaf(), "-")
	return parts[max(len(parts)-2, 0)]
}

func (w *world) fate(id ticketID) *ticketFate {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fateLocked(id)
}

func (w *world) fateLocked(id ticketID) *ticketFate {
	f := w.tickets[id]
	if f == nil {
		f = &ticketFate{}
		w.tickets[id] = f
	}
	return f
}

// believe notes a hold that begins, and judges whether it may.
func (w *world) believe(sl *slot, name string, ctx context.Context, token int64, key string, mutex bool) *belief {
	return w.believes(&belief{slot: sl, name: name, ctx: ctx, token: token, key: key, mutex: mutex})
}

// believes is believe for more that is to be known.
func (w *world) believes(b *belief) *belief {
	if _, ok := b.ctx.(*lease.Hold); !ok && !w.closed(b.slot) {
		w.violate("not held and was", "%s of s%d: %v after success", b.name, b.slot.id, context.Cause(b.ctx))
	}
	return w.begins(b)
}

// begins notes a belief.
func (w *world) begins(b *belief) *belief {
	sl, live := b.slot, b.ctx.Err() == nil
	b.since = w.etcd.Rev()
	w.mu.Lock()
	b.client, b.began = sl.client, time.Now()
	b.phantom = w.phantomLocked(b)
	w.beliefs[b] = struct{}{}
	w.left.begun[b.id()] = true
	w.logLocked("%v begins, live: %v", b, live)
	var same *belief
	for o := range w.beliefs {
		if o != b && o.id() == b.id() {
			same, o.passed = o, b.resumed
			b.passed = b.passed || o.resumed && !b.resumed // by a call that returns late
		}
	}
	w.noteEndLocked(b)
	w.mu.Unlock()
	if same != nil {
		w.judgeLoss(same)
	}
	if live {
		w.judgeHold(b)
	}
	w.judgeAlone(b)
	return b
}

// judgeHold looks whether a hold that is believed in is the lowest.
func (w *world) judgeHold(b *belief) {
	kvs, rev := w.etcd.Keys(b.name+"/"), w.etcd.Rev()
	if b.ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tickets[b.id()] != nil && w.tickets[b.id()].removed != nil {
		return // judged by its removal
	}
	found := false
	var own writer
	for _, kv := range kvs {
		if b.id() == (ticketID{string(kv.Key), kv.CreateRevision}) {
			own = w.writerLocked(kv)
		}
	}
	var before []string
	for _, kv := range kvs {
		id := ticketID{string(kv.Key), kv.CreateRevision}
		switch {
		case strings.Contains(id.key[len(b.name)+1:], "/"):
		case id == b.id():
			found = true
		case kv.CreateRevision >= b.token:
		case b.mutex && id.class() == queue.Exclusive && w.writerLocked(kv) == own && !w.believedLocked(id) && w.stays[id] == nil: // handed over in memory
		default:
			before = append(before, fmt.Sprintf("%016x %s", id.rev, id.leaf()))
		}
	}
	slices.Sort(before)
	if !found || !holdTogether(append(before, fmt.Sprintf("%016x %s", b.token, b.id().leaf()))) {
		w.violateLocked("not the lowest", "%v at revision %d: found %v, before it %q", b, rev, found, before)
	}
	w.judgeTokenLocked(b)
}

func (w *world) believedLocked(id ticketID) bool {
	for b := range w.beliefs {
		if b.id() == id && !b.passed {
			return true
		}
	}
	return false
}

// judgeAlone looks for another hold that is believed in and excludes this one. Where an operator has removed a ticket, its
// holder may be the one that does not know yet.
func (w *world) judgeAlone(b *belief) {
	w.mu.Lock()
	var others []*belief
	for o := range w.beliefs {
		if o.name == b.name {
			others = append(others, o)
		}
	}
	w.mu.Unlock()
	others = slices.DeleteFunc(others, func(o *belief) bool { return o.ctx.Err() != nil })
	w.mu.Lock()
	defer w.mu.Unlock()
	var together []string
	for _, o := range others {
		if _, there := w.beliefs[o]; there && !w.removedLocked(o) {
			together = append(together, fmt.Sprintf("%016x %s", o.token, o.id().leaf()))
		}
	}
	slices.Sort(together)
	if b.ctx.Err() == nil && !holdTogether(together) {
		w.violateLocked("two holders", "%v among %q", b, together)
	}
}

func (w *world) removedLocked(b *belief) bool { return w.fateLocked(b.id()).removed != nil }

// end notes that a hold is about to be given back.
func (w *world) end(b *belief) {
	w.judgeLoss(b)
	w.judgeWanted(b)
	live := b.ctx.Err() == nil
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.beliefs, b)
	b.ended, b.live = time.Now(), live
}

// committed takes in what the store has made its next revision.
func (w *world) committed(c memetcd.Commit) {
	var hit []*belief
	w.mu.Lock()
	w.left.by[c.Rev] = c.Client
	for _, ev := range c.Events {
		key := string(ev.Kv.Key)
		if ev.Type == clientv3.EventTypePut {
			id := ticketID{key, ev.Kv.CreateRevision}
			w.fateLocked(id)
			w.left.wrote[id] = append(w.left.wrote[id], w.writerLocked(ev.Kv))
			w.logLocked("  %d: put %s = %s (%s)", c.Rev, key, ev.Kv.Value, c.Cause)
			w.judgePutLocked(ev, c.Rev)
			continue
		}
		id := ticketID{key, ev.PrevKv.CreateRevision}
		w.logLocked("  %d: delete %s@%d (%s)", c.Rev, id.key, id.rev, c.Cause)
		w.fateLocked(id).removed = &c
		w.judgeStayLocked(id, c)
		w.judgeMarginLocked(id, c)
		for b := range w.beliefs {
			if b.id() == id {
				hit = append(hit, b)
			}
		}
	}
	w.judgeQueuesLocked(c)
	w.mu.Unlock()
	for _, b := range hit {
		if c.Cause == memetcd.ByOperator || b.ctx.Err() != nil {
			continue // or it has until the next check to notice
		}
		w.mu.Lock()
		if _, there := w.beliefs[b]; there {
			kind := "believed in after its end"
			if b.resumed && c.Cause == memetcd.ByRequest && c.Client != b.client.id && w.lateLocked(b.id(), c.Client) {
				kind = "a late release met what was taken up"
			}
			w.violateLocked(kind, "%v, by %s of client %d at revision %d", b, c.Cause, c.Client, c.Rev)
		}
		w.mu.Unlock()
	}
}

// judgePutLocked looks at a value that has come to be in force, and at writes under a guard.
func (w *world) judgePutLocked(ev *mvccpb.Event, rev int64) {
	key := string(ev.Kv.Key)
	var n int
	p := w.proclaims[ticketID{key, ev.Kv.CreateRevision}]
	if _, err := fmt.Sscanf(string(ev.Kv.Value), "p%d", &n); err == nil && p != nil && n < p.confirmed {
		w.violateLocked("a confirmed Proclaim is undone", "%s@%d: p%d after p%d was confirmed", key, ev.Kv.CreateRevision, n, p.confirmed)
	}
	name, under := strings.CutPrefix(key, guarded)
	if !under {
		return
	}
	for b := range w.beliefs {
		// What was committed before the hold began may be told of after it.
		if b.name == name && rev > b.since && b.excludes(string(ev.Kv.Value)) && !w.removedLocked(b) && b.ctx.Err() == nil {
			w.violateLocked("a guard of an earlier hold", "%s written under %s while %v", key, ev.Kv.Value, b)
		}
	}
}
