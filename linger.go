package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file keeps a released lock for its Session's next hold (see WithLinger).
//
// A released ticket idles: it stays in etcd, so nobody else can hold, and the next Lock of the Session takes it up
// without asking. What makes that fair is the vigil, a watch on the name that knows who else queues: a ticket idles
// only while the vigil says that nobody does, and leaves the moment somebody comes. Without a vigil that is sure, a
// release is an ordinary one.

// vigil is the watch on one name, from the first hold of it until it has rested for the linger time without a ticket.
type vigil struct {
	cancel context.CancelFunc
	rest   *time.Timer // ends the vigil when the line has had no ticket for long enough

	// Guarded by the Session's mu.
	sure   bool            // others is what etcd has
	others map[string]bool // contenders that are not this Session's; false for one of whom the watch has not told yet
	idling *time.Timer     // ends the idling of the line's holder
}

// keepVigilLocked begins the vigil of a name that is to linger.
func (ln *line) keepVigilLocked() {
	s := ln.s
	if s.opts.linger == 0 || ln.vigil != nil || ln.holder == nil || !ln.holder.kind.relay {
		return
	}
	ctx, cancel := context.WithCancel(s.back)
	v := &vigil{cancel: cancel}
	if !s.spawnLocked(func() { ln.watchOver(ctx, v) }) {
		cancel()
		return
	}
	v.rest = time.AfterFunc(s.opts.linger, func() { ln.endVigil(v) })
	v.rest.Stop()
	v.idling = time.AfterFunc(s.opts.linger, ln.giveUp)
	v.idling.Stop()
	ln.vigil = v
}

// watchState is how a vigil's watch compares with what a read finds.
type watchState int

const (
	inStep watchState = iota
	behind            // it has not told of everyone: the events may be on their way
	stuck             // they have had their time
)

// endVigil runs when the line has rested.
func (ln *line) endVigil(v *vigil) {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.refs == 0 {
		ln.dropVigilLocked(v)
	}
}

// dropVigilLocked ends v at once: from here on nothing idles on its word.
func (ln *line) dropVigilLocked(v *vigil) {
	v.cancel()
	if ln.vigil != v {
		return
	}
	v.rest.Stop()
	v.idling.Stop()
	ln.vigil = nil
	if t := ln.holder; t != nil && t.state == idle {
		t.leaveLocked()
	}
	ln.settleLocked()
}

// watchOver keeps the vigil until ctx ends. A watch that breaks is opened again, and until it is confirmed nothing
// idles.
func (ln *line) watchOver(ctx context.Context, v *vigil) {
	s := ln.s
	var w watch
	defer func() {
		w.stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		ln.dropVigilLocked(v)
	}()
	for {
		if _, err := w.open(ctx, s, peer{key: ln.prefix}, clientv3.WithPrefix()); err != nil {
			return
		}
		kvs, rev, err := ln.list(ctx)
		if err != nil {
			return
		}
		s.mu.Lock()
		v.others, v.sure = make(map[string]bool), true
		for _, kv := range kvs {
			ln.noteLocked(v, string(kv.Key), true) // from before the watch
		}
		s.mu.Unlock()
		ln.giveWay()
		again := time.NewTimer(s.TTL() / 3)
		for w.cancel != nil {
			select {
			case <-again.C:
				// The watch may be on a member that is frozen: then a read knows of somebody of whom it does not tell,
				// not even a little later.
				pause := s.TTL() / 3
				switch ln.compare(ctx, v) {
				case behind:
					pause = s.patience(0)
				case stuck:
					s.freshStream(w.gen)
					w.stop()
				}
				again.Reset(pause)
			case resp, ok := <-w.events:
				if !ok || resp.Err() != nil {
					w.stop()
					break
				}
				ln.note(v, resp.Events, rev)
			case <-ctx.Done():
				return
			}
		}
		again.Stop()
		s.mu.Lock()
		v.sure = false
		s.mu.Unlock()
		ln.giveUp()
	}
}

// compare looks whether the watch has told of everyone that queues. Whoever it has not told of counts all the same.
func (ln *line) compare(ctx context.Context, v *vigil) watchState {
	kvs, _, err := ln.list(ctx)
	if err != nil {
		return stuck // or nobody knows
	}
	s := ln.s
	s.mu.Lock()
	state := inStep
	for _, told := range v.others {
		if !told {
			state = stuck // nor since the look before
		}
	}
	for _, kv := range kvs {
		key := string(kv.Key)
		if _, known := v.others[key]; !known && ln.foreignLocked(key) {
			v.others[key], state = false, max(state, behind)
		}
	}
	s.mu.Unlock()
	ln.giveWay()
	return state
}

// note takes in what the watch saw after revision rev.
func (ln *line) note(v *vigil, events []*clientv3.Event, rev int64) {
	s := ln.s
	s.mu.Lock()
	var removed []*ticket
	var at int64
	for _, ev := range events {
		if ev.Kv.ModRevision <= rev {
			continue
		}
		key, put := string(ev.Kv.Key), ev.Type == clientv3.EventTypePut
		ln.noteLocked(v, key, put)
		// One of ours, whether it holds already or is about to.
		if t := s.lease.tickets[key]; t != nil && !put && t.rev != 0 && t.rev < ev.Kv.ModRevision {
			removed, at = append(removed, t), ev.Kv.ModRevision
		}
	}
	s.mu.Unlock()
	for _, t := range removed {
		t.removed(at)
	}
	ln.giveWay()
}

func (ln *line) noteLocked(v *vigil, key string, exists bool) {
	if !exists {
		delete(v.others, key)
	} else if ln.foreignLocked(key) {
		v.others[key] = true
	}
}

func (ln *line) foreignLocked(key string) bool {
	return ln.direct(key) && ln.s.lease.numberOfLocked(key) == 0
}

// giveWay ends the idling when somebody else has come.
func (ln *line) giveWay() {
	s := ln.s
	s.mu.Lock()
	wanted := ln.vigil != nil && len(ln.vigil.others) > 0
	s.mu.Unlock()
	if wanted {
		ln.giveUp()
	}
}

// giveUp releases the line's ticket if it idles.
func (ln *line) giveUp() {
	s := ln.s
	s.mu.Lock()
	t := ln.holder
	if t != nil && t.state != idle {
		t = nil
	}
	s.mu.Unlock()
	if t != nil {
		t.leaveIf(idle)
	}
}

// linger keeps a ticket whose hold was released, if nobody else wants it. Those of this Session that queue have it
// handed over instead.
func (t *ticket) linger() bool {
	s, ln := t.line.s, t.line
	if s.opts.linger == 0 || !t.kind.relay {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := ln.vigil; t.state != held || v == nil || !v.sure || len(v.others) > 0 || ln.refs > 1 || s.closing.Err() != nil {
		return false
	}
	if t.checking != nil {
		return false // it may be a phantom: the deletion tells
	}
	t.state = idle
	ln.vigil.idling.Reset(s.opts.linger)
	return true
}

// resumeLocked takes up an idle ticket for the next hold; nil if there is none. An Election does not take over what a
// Mutex holds: then the ticket leaves.
func (ln *line) resumeLocked(l *lease, k kind) *ticket {
	if ln == nil || ln.holder == nil || ln.holder.state != idle {
		return nil
	}
	old := ln.holder
	if !k.relay || old.lease != l {
		old.leaveLocked()
		return nil
	}
	// A new value for a new hold: whoever still has the old one must not end this one with it.
	t := &ticket{
		line: ln, lease: l, n: old.n, key: old.key, value: old.value, kind: old.kind,
		state: held, rev: old.rev, guarded: old.guarded, hold: newHold(l),
	}
	l.tickets[t.key], ln.holder, old.state = t, t, gone
	old.tellLocked()
	ln.vigil.idling.Stop()
	return t
}
