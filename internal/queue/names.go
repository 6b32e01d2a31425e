package queue

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file gives out the names of tickets and takes them back. A key that was deleted stays in etcd's index until the
// store is compacted, and whoever queues reads over it: so a name is used again once its ticket is gone.
//
// Why that is safe: what can still be under way for an earlier ticket of the name does no harm. A deletion names the
// ticket's create revision, and so removes that ticket or nothing. A put was answered, or else the name is burnt; should
// the etcd client have sent it twice all the same, the second copy finds the next ticket there and changes nothing, or
// comes before it and is taken for it, at the place where it is in the queue. A ticket that another Session has taken
// up is gone for this one and still there in etcd: its name is burnt (resume.go).
//
// A lease that this Session did not make (WithLease) may have tickets of earlier Sessions, and of others that use it now, and
// requests of theirs may be under way. So the numbers under it begin at one drawn at random from a range so large that no two
// Sessions ever meet: what is not above that number, or above the highest given out, is none of ours. It is not deleted, not
// taken for ours, and no name of theirs is used.

// names is what one lease knows of the numbers in the names under it.
type names struct {
	base  uint64 // no number up to this one is ours
	top   uint64 // the highest number given out, of any lock
	burnt uint64 // no number up to this one is used again
	late  bool   // a put may still arrive: look for strays until the lease ends

	// Until then whoever ends the Session is told that a put may arrive: a TTL from one that was not answered, 0 if there was none.
	unanswered lease.Instant
}

// besideOthers are the names of a Session on a lease that it shares with others.
func besideOthers() names {
	base := 1<<32 + rand.Uint64N(1<<62) // far above what a Session that made the lease counts from 1 on
	return names{base: base, top: base, burnt: base}
}

// counter is the numbers of one lock under one lease. It begins anew when its group does, which is when none of its
// tickets may be in etcd, and with each next lease.
type counter struct {
	of   *Lease
	free []uint64 // of tickets that are gone
	top  uint64   // the highest given out
}

// takeLocked returns a number for a ticket of the lock under l: that of one that is gone, where there is one. A call that
// comes late with the lease before has one that nobody had, and the count stays.
func (c *counter) takeLocked(l *Lease, newest bool) uint64 {
	if !newest {
		l.names.top++
		return l.names.top
	}
	if c.of != l {
		*c = counter{of: l}
	}
	for len(c.free) > 0 {
		n := c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
		if n > l.names.burnt {
			return n
		}
	}
	c.top = max(c.top, l.names.burnt) + 1
	l.names.top = max(l.names.top, c.top)
	return c.top
}

// giveLocked takes the number of a ticket that is gone.
func (c *counter) giveLocked(l *Lease, n uint64) {
	if c.of == l && n > 0 { // a ticket that was taken up has its name from elsewhere
		c.free = append(c.free, n)
	}
}

// burnLocked says that a ticket numbered n may appear, or may have appeared, without our knowing: the number is not used
// again. Nor is any lower one, so that one number remembers them all.
func (l *Lease) burnLocked(n uint64) { l.names.burnt = max(l.names.burnt, n) }

// passedOnLocked says that the key may be there as another Session's ticket, created at rev. The put of the next one of its name
// would take it for its own, and a sweep for a stray; but a later generation of that key is one.
func (t *Ticket) passedOnLocked(rev int64) {
	t.lease.burnLocked(t.n)
	t.lease.passedOn[t.key] = rev
	t.goneLocked(0)
}

// lateLocked says that a request to put the ticket may arrive late, even after its deletion: from now on each renewal is
// followed by a sweep, and the name is burnt.
func (t *Ticket) lateLocked() {
	t.lease.names.late = true
	t.lease.burnLocked(t.n)
	if t.claimed && !t.lease.shared && !t.lease.claims[t.key] {
		t.lease.claims[t.key] = false
	}
}

// unansweredLocked says that a request to put the ticket was not answered.
func (t *Ticket) unansweredLocked() {
	t.lateLocked()
	t.lease.names.unanswered = lease.Now().Add(t.lease.TTL)
}

// putAnswered takes in what came of one request to put the ticket, or its set. One that was not answered may arrive long
// after a later one, and after the deletion. So may an earlier copy of one whose answer came late, see rpc.Client.Late: that
// needs a sweep, too. The name need not be burnt then, since the put was answered.
func (t *Ticket) putAnswered(sent lease.Instant, err error) {
	q := t.group.q
	switch {
	case rpc.Transient(err):
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, t := range t.set() {
			t.unansweredLocked()
		}
	case err != nil:
		t.late()
	case q.c.Late(lease.Now().Sub(sent)):
		q.mu.Lock()
		defer q.mu.Unlock()
		t.lease.names.late = true
	}
}

// late is lateLocked, for all of a set.
func (t *Ticket) late() {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range t.set() {
		t.lateLocked()
	}
}

// numberLocked is the number in key, 0 if it has not the form of a ticket that this Session has named under l.
func (l *Lease) numberLocked(key string) uint64 {
	_, leaf := lockOf(key)
	digits, ok := strings.CutPrefix(unclassed(leaf), strconv.FormatInt(int64(l.ID), 16)+"-")
	if n := uint64(number(digits)); ok && n > l.names.base && n <= l.names.top {
		return n
	}
	return 0
}
