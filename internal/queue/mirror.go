package queue

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file keeps the whole queue of one name in memory, for whoever needs to know of everybody in it.

// mirror is the contenders of a name as a watch tells of them. It belongs to the goroutine that runs it, which makes all
// the calls below.
type mirror struct {
	q    *Tickets
	keys Keys

	contenders map[string]*Contender // by key
	rev        int64                 // what contenders is as of, 0 before the first list
	read       lease.Instant         // when the latest list or check that was answered was sent
	due        int64                 // the revision that the watch has to reach: a read has seen it

	// event: one contender has come (before is nil) or changed, or gone (now has no Rev). What a list shows is no event.
	event   func(before, now *Contender)
	changed func(listed bool) // contenders is complete as of rev; listed, if it was read anew; or a check was answered
	blind   func()            // the watch has broken: nothing is known until changed is called
}

// told reports whether the watch has told of everything that is known to have happened.
func (m *mirror) told() bool { return m.rev >= m.due }

// run follows the queue until ctx ends or etcd refuses for good.
func (m *mirror) run(ctx context.Context) error {
	f := &feed{
		q: m.q, key: m.keys.prefix, opts: []clientv3.OpOption{clientv3.WithPrefix()},
		list: m.list, apply: m.apply, check: m.check, told: m.told, blind: m.blind,
	}
	return f.run(ctx)
}

// check reads the queue again, to know what the watch should have told.
func (m *mirror) check() reading {
	known, sent := m.rev, lease.Now()
	return func(ctx context.Context) (take func() error, err error) {
		all, _, rev, err := m.keys.List(ctx, m.q.c)
		return func() error {
			if rev < known {
				return errRewound
			}
			m.read, m.due = sent, m.newest(all, rev)
			m.changed(false)
			return nil
		}, err
	}
}

// list reads the whole queue and starts from there.
func (m *mirror) list(ctx context.Context) error {
	sent := lease.Now()
	all, _, rev, err := m.keys.List(ctx, m.q.c)
	if err != nil {
		return err
	}
	m.contenders, m.rev, m.due, m.read = make(map[string]*Contender, len(all)), rev, 0, sent
	for _, c := range all {
		m.contenders[c.Key] = c
	}
	m.changed(true)
	return nil
}

// newest returns a revision that a watch which has told everything must have shown: of the latest change among all, which
// were there as of rev, or, if one that is known is missing there, any after what is known.
func (m *mirror) newest(all []*Contender, rev int64) int64 {
	newest, there := int64(0), make(map[string]bool, len(all))
	for _, c := range all {
		newest, there[c.Key] = max(newest, c.Mod), true
	}
	for key, c := range m.contenders {
		if c.Mod <= rev && !there[key] { // a later one is not in the list
			newest = max(newest, m.rev+1)
		}
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
