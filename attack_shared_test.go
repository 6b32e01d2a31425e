package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file judges holds that others share, holds of several names, and places that stay taken.

func (id ticketID) leaf() string { return id.key[strings.LastIndexByte(id.key, '/')+1:] }

func (id ticketID) class() queue.Class {
	c, _ := queue.Classify(id.leaf())
	return c
}

// word is what the leaf begins with, of a permit.
func (id ticketID) word() string { return strings.Join(strings.SplitAfterN(id.leaf(), "-", 3)[:2], "") }

// mark is what a hold writes under its guard.
func (b *belief) mark() string {
	if c := b.id().class(); c != queue.Exclusive {
		return fmt.Sprintf("%d %s", b.token, b.id().word())
	}
	return fmt.Sprint(b.token)
}

// excludes reports whether what another hold wrote as its mark may not be written under this one.
func (b *belief) excludes(mark string) bool {
	token, word, shared := strings.Cut(mark, " ")
	if token == fmt.Sprint(b.token) {
		return false
	}
	return !shared || b.id().class() == queue.Exclusive || !strings.HasPrefix(b.id().leaf(), strings.SplitAfter(word, "-")[0])
}

// holdTogether reports whether all of these hold: revisions and leaves, in order.
func holdTogether(all []string) bool {
	leaves := make([]string, len(all))
	for i, s := range all {
		_, leaves[i], _ = strings.Cut(s, " ")
	}
	return queue.Holders(leaves) == len(leaves)
}

// judgeTokenLocked looks whether the token is greater than that of every earlier hold that excludes this one.
func (w *world) judgeTokenLocked(b *belief) {
	class := b.id().class()
	for of, last := range w.tokens {
		name, other, _ := strings.Cut(of, "\x00")
		same := other == fmt.Sprint(class)
		if name != b.name || same && class != queue.Exclusive {
			continue
		}
		if b.token < last || b.token == last && b.slot.linger == 0 && !b.resumed {
			kind := "a token that is not greater"
			if b.resumed && w.oneSessionLocked(b, last) {
				kind = "a release that did not arrive was taken up"
			}
			w.violateLocked(kind, "%v after %d", b, last)
		}
	}
	of := b.name + "\x00" + fmt.Sprint(class)
	w.tokens[of] = max(w.tokens[of], b.token)
}

// oneSessionLocked reports whether the Session that has put the ticket of b has put that of this token too: then it may have
// handed its hold on to it in memory, while its release was under way.
func (w *world) oneSessionLocked(b *belief, token int64) bool {
	put := w.left.wrote[b.id()]
	for id, by := range w.left.wrote {
		if id.rev == token && id.key == b.name+"/"+id.leaf() && len(put) > 0 && by[0] == put[0] {
			return true
		}
	}
	return false
}

// isThere reports whether all of a hold is in the store.
func (w *world) isThere(b *belief) bool {
	all := []*belief{b}
	if b.set != nil {
		all = *b.set
	}
	return !slices.ContainsFunc(all, func(b *belief) bool {
		kv := w.etcd.Key(b.key)
		return kv == nil || kv.CreateRevision != b.token
	})
}

// stayed is a place that is to stay taken.
type stayed struct {
	until     time.Time
	confirmed bool
}

// storeTime is the time by the store's clock.
func (w *world) storeTime() time.Time { return time.Now().Add(time.Duration(w.slept.Load())) }

func (w *world) judgeStayLocked(id ticketID, c memetcd.Commit) {
	st := w.stays[id]
	if st == nil || !st.confirmed || c.Cause == memetcd.ByOperator {
		return
	}
	if early := st.until.Sub(w.storeTime()); early > 0 {
		w.violateLocked("a place did not stay", "%s@%d is gone %v too early, by %s", id.key, id.rev, early, c.Cause)
	}
}

// noteEndLocked has the end of the hold noted.
func (w *world) noteEndLocked(b *belief) {
	if b.slot.margin == 0 || w.may(traitSuspend) || b.ctx.Err() != nil {
		return
	}
	context.AfterFunc(b.ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		hold, ok := b.ctx.(*lease.Hold)
		if b.over = time.Now(); ok && !hold.Lease().Alive() && errors.Is(context.Cause(b.ctx), ErrLost) && !w.removedLocked(b) {
			w.fateLocked(b.id()).lost = b
		}
	})
}

// judgeMarginLocked: a hold that was lost while its ticket was there ended so much earlier than another could begin.
func (w *world) judgeMarginLocked(id ticketID, c memetcd.Commit) {
	b := w.fateLocked(id).lost
	if b == nil || c.Cause == memetcd.ByOperator || w.may(traitReopen) || w.calm {
		return
	}
	if c.At.Sub(b.over) < b.slot.margin {
		w.violateLocked("a margin was given away", "%v: margin %v, over since %v, gone by %s", b, b.slot.margin, c.At.Sub(b.over), c.Cause)
	}
}

// lined is what the store has of one name.
type lined struct {
	leaves  []string         // with their revisions, in order
	waits   time.Time        // since when somebody has waited
	waited  int64            // the last revision at which somebody did
	trying  map[*call]string // calls that take it only if it is free, with the leaf that they would have
	numbers map[string]string
}

func (w *world) queueLocked(name string) *lined {
	q := w.queues[name]
	if q == nil {
		q = &lined{trying: map[*call]string{}, numbers: map[string]string{}}
		w.queues[name] = q
	}
	return q
}

// judgeQueuesLocked takes in what has changed.
func (w *world) judgeQueuesLocked(c memetcd.Commit) {
	for _, ev := range c.Events {
		key := string(ev.Kv.Key)
		for _, name := range lockNames {
			leaf, under := strings.CutPrefix(key, name+"/")
			if !under {
				continue
			}
			q := w.queueLocked(name)
			if strings.Contains(leaf, "slot/") {
				q.takeNumber(w, leaf, string(ev.Kv.Value), ev.Type.String() == "PUT")
			}
			if strings.Contains(leaf, "/") {
				continue
			}
			if ev.Type.String() != "PUT" {
				q.leaves = slices.DeleteFunc(q.leaves, func(s string) bool { return s[17:] == leaf })
			} else if ev.Kv.CreateRevision == ev.Kv.ModRevision {
				q.leaves = append(q.leaves, fmt.Sprintf("%016x %s", ev.Kv.CreateRevision, leaf))
			}
		}
	}
	for _, name := range lockNames {
		q := w.queueLocked(name)
		slices.Sort(q.leaves)
		if holdTogether(q.leaves) {
			q.waits = time.Time{}
		} else {
			q.waited = c.Rev
			if q.waits.IsZero() {
				q.waits = time.Now()
			}
		}
		for call, leaf := range q.trying {
			call.busy = call.busy || !holdTogether(append(slices.Clone(q.leaves), "f "+leaf))
		}
	}
}

// takeNumber looks whether a ticket has two numbers.
func (q *lined) takeNumber(w *world, leaf, mark string, put bool) {
	if !put {
		delete(q.numbers, leaf)
		return
	}
	if old, taken := q.numbers[leaf]; taken && mark != "foreign" && old != mark {
		w.violateLocked("a number was overwritten", "%s: %s after %s", leaf, mark, old)
	}
	for other, m := range q.numbers {
		if m == mark && other != leaf && mark != "foreign" {
			w.violateLocked("two numbers", "%s has %s and %s", mark, leaf, other)
		}
	}
	q.numbers[leaf] = mark
}

// judgeNumber compares what Slot has said.
func (w *world) judgeNumber(b *belief, key string, token int64) {
	kv := w.etcd.Key(key)
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.fateLocked(ticketID{key, token})
	if f.removed != nil || w.removedLocked(b) || b.ctx.Err() != nil {
		return
	}
	if kv == nil || kv.CreateRevision != token || string(kv.Value) != fmt.Sprintf("%s@%d", b.key, b.token) {
		w.violateLocked("a number that it has not", "%v: %s@%d: %v", b, key, token, kv)
	}
	if said := fmt.Sprintf("%s@%d", key, token); b.number == "" {
		b.number = said
		if token <= w.numbers[key] {
			w.violateLocked("a number's token is not greater", "%v: %s after %d", b, said, w.numbers[key])
		}
		w.numbers[key] = token
	} else if i := strings.LastIndexByte(b.number, '@'); b.number != said {
		rev, _ := strconv.ParseInt(b.number[i+1:], 10, 64)
		byHand := w.queueLocked(b.name).numbers[b.number[len(b.name)+1:i]] == "foreign"
		if w.fateLocked(ticketID{b.number[:i], rev}).removed == nil && !byHand {
			w.violateLocked("another number", "%v: %s after %s", b, said, b.number)
		}
		b.number = said
	}
}

// judgeWanted: whoever has asked is told that somebody waits, and only then.
func (w *world) judgeWanted(b *belief) {
	w.mu.Lock()
	wanted := b.wanted
	w.mu.Unlock()
	if wanted == nil {
		return
	}
	all := []*belief{b}
	if b.set != nil {
		all = *b.set
	}
	told := false
	select {
	case <-wanted:
		told = true
	default:
	}
	live := b.ctx.Err() == nil
	w.mu.Lock()
	defer w.mu.Unlock()
	waited := false
	for _, o := range all {
		q := w.queueLocked(o.name)
		waited = waited || q.waited > o.token
		since := q.waits
		if told || !live || since.IsZero() || w.removedLocked(o) || w.slowest > time.Second || w.may(traitSuspend) || w.calm || o.client.closed {
			continue
		}
		since = maxTime(since, maxTime(o.asked, o.client.fault.Add(w.ttl)))
		if time.Since(since) > 3*w.ttl {
			w.violateLocked("not told that somebody waits", "%v: for %v: %q", o, time.Since(since), q.leaves)
		}
	}
	if told && !waited {
		w.violateLocked("told that somebody waits", "%v", b)
	}
}

// trying notes a call that takes something only if it is free.
func (w *world) trying(ctx context.Context, sl *slot, names []string, leaf, format string, args ...any) *call {
	c := w.calling(ctx, sl.id, format, args...)
	c.names, c.leaf = names, leaf
	w.lookLocked(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.queueLocked(name).trying[c] = leaf
	}
	return c
}

// lookLocked asks the store itself.
func (w *world) lookLocked(c *call) {
	for _, name := range c.names {
		var all []string
		for _, kv := range w.etcd.Keys(name + "/") {
			if leaf := string(kv.Key)[len(name)+1:]; !strings.Contains(leaf, "/") {
				all = append(all, fmt.Sprintf("%016x %s", kv.CreateRevision, leaf))
			}
		}
		slices.Sort(all)
		busy := !holdTogether(append(all, "f "+c.leaf))
		w.mu.Lock()
		c.busy = c.busy || busy
		w.mu.Unlock()
	}
}

// tried is the end of it.
func (w *world) tried(c *call, err error) {
	w.lookLocked(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range c.names {
		delete(w.queueLocked(name).trying, c)
	}
	locked := new(LockedError)
	if errors.As(err, &locked) && !c.busy {
		// A hold of this Session whose ticket somebody has removed is one until that is noticed.
		if r := w.fateLocked(ticketID{locked.Key, locked.Token}).removed; r != nil && r.Cause == memetcd.ByOperator {
			return
		}
		w.violateLocked("busy and was free", "s%d %s: %v", c.who, c.what, err)
	}
}
