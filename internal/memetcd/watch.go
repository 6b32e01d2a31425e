package memetcd

import (
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has single watches: what each has been told, and what is next.

// catchUp is how long a watch waits that begins in the past: etcd serves those by a loop.
const catchUp = 100 * time.Millisecond

type watcher struct {
	id       int64
	from, to []byte
	next     int64 // the revision that it wants next
	noPut    bool
	noDelete bool
	prev     bool
	behind   bool // waits for the loop that catches up
}

// catchUpLocked tells a watch that began in the past what has happened since, in one answer.
func (w *watchStream) catchUpLocked(a *watcher) {
	s := w.c.s
	if w.watches[a.id] != a || w.broken != nil {
		return
	}
	a.behind = false
	cur := s.appliedLocked(w.member)
	if a.next < s.compacted {
		delete(w.watches, a.id)
		w.sayLocked(&pb.WatchResponse{
			Header: s.headerLocked(cur, w.member), WatchId: a.id, Canceled: true, CompactRevision: s.compacted,
			CancelReason: rpctypes.ErrCompacted.Error(),
		})
		return
	}
	var events []*mvccpb.Event
	for _, c := range s.sinceLocked(a.next) {
		if c.Rev <= cur {
			events = append(events, a.pick(c)...)
		}
	}
	a.next = max(a.next, cur+1)
	if len(events) > 0 {
		w.sayLocked(&pb.WatchResponse{Header: s.headerLocked(cur, w.member), WatchId: a.id, Events: events})
	}
}

// sinceLocked lists the commits from a revision on.
func (s *Server) sinceLocked(rev int64) []Commit {
	at, _ := slices.BinarySearchFunc(s.log, rev, func(c Commit, rev int64) int { return compare(c.Rev, rev) })
	return s.log[at:]
}

// pumpLocked tells every watch of the stream what its member knows by now: one answer for one revision.
func (w *watchStream) pumpLocked() {
	s := w.c.s
	cur := s.appliedLocked(w.member)
	for _, a := range w.watches {
		if a.behind {
			continue
		}
		for _, c := range s.sinceLocked(a.next) {
			if c.Rev > cur {
				break
			}
			a.next = c.Rev + 1
			if events := a.pick(c); len(events) > 0 {
				w.sayLocked(&pb.WatchResponse{Header: s.headerLocked(c.Rev, w.member), WatchId: a.id, Events: events})
			}
		}
	}
}

// pick takes from a commit what the watch asked for.
func (a *watcher) pick(c Commit) (events []*mvccpb.Event) {
	for _, ev := range c.Events {
		put := ev.Type == clientv3.EventTypePut
		if !within(string(ev.Kv.Key), a.from, a.to) || put && a.noPut || !put && a.noDelete {
			continue
		}
		told := &mvccpb.Event{Type: ev.Type, Kv: clone(ev.Kv)}
		if a.prev && ev.PrevKv != nil {
			told.PrevKv = clone(ev.PrevKv)
		}
		events = append(events, told)
	}
	return events
}
