package queue

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file keeps the whole queue of one name in memory, for whoever needs to know of everybody in it.

// mirror is the contenders of a name as a watch tells of them. It belongs to the goroutine that runs it, which makes all
// the calls below.
type mirror struct {
	q    *Tickets
	keys Keys

	contenders map[string]*Contender // by key
	rev        int64                 // what contenders is as of, 0 before the first list
	due        int64                 // the revision that the watch has to reach: a read has seen it

	event   func(before, now *Contender) // one contender has come (before is nil) or changed, or gone (now has no Rev); not for what a list shows
	changed func(listed bool)            // contenders is complete as of rev; listed, if it was read anew
	blind   func()                       // the watch has broken: nothing is known until changed is called
}

// told reports whether the watch has told of everything that is known to have happened.
func (m *mirror) told() bool { return m.rev >= m.due }

// run follows the queue until ctx ends or etcd refuses for good.
func (m *mirror) run(ctx context.Context) error {
	var w rpc.Watch
	defer w.Stop()
	pace := rpc.Pace{Least: 20 * time.Millisecond, Most: time.Second}
	for {
		before := m.rev
		err := m.pass(ctx, &w)
		if m.blind != nil {
			m.blind()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !rpc.Transient(err):
			return err
		case m.rev != before:
			pace.Reset()
		}
		if !pace.Wait(ctx) {
			return ctx.Err()
		}
	}
}

// pass follows one watch until it breaks. The watch begins "from now on" (see rpc.Watch for why), then the queue is read;
// from there on events tell everything.
//
// Once per third of the TTL it reads the queue again, linearizably: a watch on a member that is frozen says nothing, nor
// does one that is ahead of a store restored from a backup. Where the read knows more, and goes on to a little later, the
// pass ends and the next one opens its watch on another stream.
func (m *mirror) pass(ctx context.Context, w *rpc.Watch) error {
	if _, err := w.Start(ctx, m.q.c, m.keys.prefix, clientv3.WithPrefix()); err != nil {
		return err
	}
	if err := m.list(ctx); err != nil {
		return err
	}
	every := m.q.renewal()
	again := time.NewTimer(every)
	defer again.Stop()
	for {
		select {
		case resp, ok := <-w.Events:
			events := w.Read(resp, ok)
			if w.Broken() {
				return rpc.ErrUnanswered
			}
			m.apply(events)
		case <-again.C:
			if !m.told() {
				w.LeaveStream(m.q.c)
				return rpc.ErrUnanswered
			}
			all, _, rev, err := m.keys.List(ctx, m.q.c)
			switch {
			case err != nil:
				return err
			case rev < m.rev: // a restored store: what is known is of another history
				w.LeaveStream(m.q.c)
				return rpc.ErrUnanswered
			}
			again.Reset(every)
			if m.due = m.newest(all); !m.told() {
				again.Reset(m.q.c.AttemptTimeout(0)) // the events may be on their way
				m.changed(false)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// list reads the whole queue and starts from there.
func (m *mirror) list(ctx context.Context) error {
	all, _, rev, err := m.keys.List(ctx, m.q.c)
	if err != nil {
		return err
	}
	m.contenders, m.rev, m.due = make(map[string]*Contender, len(all)), rev, 0
	for _, c := range all {
		m.contenders[c.Key] = c
	}
	m.changed(true)
	return nil
}

// newest returns a revision that a watch which has told everything must have shown: of the latest change among all, or,
// if one that is known is missing there, any after what is known.
func (m *mirror) newest(all []*Contender) int64 {
	newest, known := int64(0), 0
	for _, c := range all {
		newest = max(newest, c.Mod)
		if m.contenders[c.Key] != nil {
			known++
		}
	}
	if known < len(m.contenders) {
		newest = max(newest, m.rev+1)
	}
	return newest
}

// apply takes events in, one revision at a time: what happened in one Txn is one state.
func (m *mirror) apply(events []*clientv3.Event) {
	for i, ev := range events {
		rev := ev.Kv.ModRevision
		if rev <= m.rev {
			continue // the list knew it already
		}
		if key := string(ev.Kv.Key); m.keys.direct(key) {
			before, now := m.contenders[key], contender(ev.Kv)
			if ev.Type == clientv3.EventTypeDelete {
				now.Rev = 0 // Mod says when
				delete(m.contenders, key)
			} else {
				m.contenders[key] = now
			}
			if m.event != nil {
				m.event(before, now)
			}
		}
		if i+1 == len(events) || events[i+1].Kv.ModRevision != rev {
			m.rev = rev
			m.changed(false)
		}
	}
}

// renewal is the time from one renewal to the next.
func (q *Tickets) renewal() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lease.TTL / 3
}

// Observe calls told with the first contender of a name, nil for nobody: with what it is now, and with every change, in
// order, until ctx ends or etcd refuses for good. It never goes backwards within one history of the cluster.
func (q *Tickets) Observe(ctx context.Context, name string, told func(*Contender)) error {
	var last Contender
	m := &mirror{q: q, keys: KeysOf(name)}
	begun := false
	m.changed = func(bool) {
		first := new(Contender)
		for _, c := range m.contenders {
			if first.Rev == 0 || c.Rev < first.Rev {
				first = c
			}
		}
		if begun && *first == last {
			return
		}
		begun, last = true, *first
		if first.Rev == 0 {
			first = nil
		}
		told(first)
	}
	return m.run(ctx)
}
