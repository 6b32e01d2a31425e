package queue

import (
	"slices"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file has the states of a ticket, and all that follows from a change of them in memory. Nothing else sets one.
//
//	from     to       when
//	-        sending  it is registered, before its put is sent
//	-        held     it takes up the place of an idle one, which is gone at the same moment
//	sending  waiting  its put was answered
//	waiting  held     its turn has come, and its lease lives
//	held     idle     released, and kept for the Session's next hold (WithLinger)
//	sending  left     given up before its put was answered
//	waiting  left     given up
//	held     staying  released, and its place stays taken for a while (stay.go)
//	held     left     released
//	idle     left     somebody else wants the lock, or the linger time is over
//	staying  left     the while is over, or etcd refuses it
//	left     gone     its deletion is confirmed
//	any      gone     its lease is over; or it was never put; or somebody else removed it; or the next hold took it up

type state uint8

const (
	sending state = iota // its put may or may not have arrived
	waiting              // it is in etcd at rev, behind others
	held                 // it holds, and its caller knows
	idle                 // it would hold, its hold was released, and it is kept for the next one
	staying              // released; its key is on its way to a lease of its own, or hangs on it
	left                 // released or given up; its deletion is not confirmed yet
	gone                 // not in etcd, as far as anyone can tell
)

// leadsTo is the table.
var leadsTo = [...][]state{
	sending: {waiting, left, gone},
	waiting: {held, left, gone},
	held:    {idle, staying, left, gone},
	idle:    {left, gone},
	staying: {left, gone},
	left:    {gone},
	gone:    {},
}

// moveLocked changes the state, if the table has it.
func (t *Ticket) moveLocked(to state) bool {
	if !slices.Contains(leadsTo[t.state], to) {
		return false
	}
	t.endHoldLocked(to)
	if t.state == left {
		t.group.q.tally.leaving--
	}
	g := t.group
	if c := t.censusLocked(); c != nil && t.state == sending {
		c.sending--
	}
	t.state = to
	switch to {
	case held:
		g.holder, g.seen = t, nil
		t.beginHoldLocked()
	case idle:
		g.idle = t
		t.unwantLocked()
	case staying, left, gone:
		if g.holder == t {
			g.holder = nil
		}
		if g.idle == t {
			g.idle = nil
		}
		if t.checking != nil {
			t.checking.Stop()
		}
		t.unwantLocked()
	}
	switch to {
	case left:
		g.toDelete = append(g.toDelete, t)
		g.q.tally.leaving++
	case gone:
		t.next = nil // whoever keeps this one does not keep all that came after
		delete(t.lease.tickets, t.key)
		g.counter.giveLocked(t.lease, t.n)
		g.refs--
	}
	if to == staying || to == left || to == gone {
		t.tellLocked()
	}
	return true
}

// inEtcd are the states in which the ticket should be there.
var inEtcd = []state{waiting, held, idle, staying}

func (t *Ticket) liveLocked() bool { return slices.Contains(inEtcd, t.state) }

// goneLocked forgets the ticket; at is a revision as of which it is not in etcd, 0 where that is not known. For a hold on
// a lease that is over, the lease's context has ended it already.
func (t *Ticket) goneLocked(at int64) {
	if !t.moveLocked(gone) {
		return
	}
	t.goneAt = at
	t.group.goneAt = max(t.group.goneAt, at)
	if c := t.group.census[t.kind.Class]; c != nil && at > 0 {
		c.crossOffLocked(t, at)
	}
	t.group.dropLocked()
}

// status is what others of its Session ask of a ticket.
type status struct {
	state
	rev     int64           // 0 while that is not known
	letsIn  bool            // the ticket behind this one holds once it has left
	goneAt  int64           // the revision as of which it is gone
	changed <-chan struct{} // closed at the next news, see changedLocked
}

func (t *Ticket) status() status {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return status{t.state, t.rev, t.letsInNext(), t.goneAt, t.changedLocked()}
}

// isGone reports whether the ticket is gone, or another of its set.
func (t *Ticket) isGone() bool {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(t.set(), func(t *Ticket) bool { return t.state == gone })
}

// changedLocked returns a channel that is closed when the ticket is placed, stays, has left or is gone, or when more is known of
// its deletion or of its stay.
func (t *Ticket) changedLocked() <-chan struct{} {
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

func (t *Ticket) tellLocked() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// takeUpLocked has a new ticket hold in the place of this idle one. It is another value for another hold: whoever still
// has the old one must not end this one with it.
func (t *Ticket) takeUpLocked() *Ticket {
	up := &Ticket{
		group: t.group, lease: t.lease, n: t.n, key: t.key, value: t.value, kind: t.kind,
		state: held, rev: t.rev, mod: t.mod, guarded: t.guarded, memory: true, hold: lease.NewHold(t.lease.Lease, t.kind.Released),
	}
	t.lease.tickets[t.key], t.group.holder, t.group.idle = up, up, nil
	up.beginHoldLocked()
	t.state = gone
	t.tellLocked()
	return up
}
