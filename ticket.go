package etcdlock

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file has the two things that the queue is made of in memory. A ticket is one place in the queue of one name: one
// generation of a key in etcd. A line is what a Session knows of one name: its own tickets there.
//
// Everything here is guarded by the Session's mu, and nothing here talks to etcd.

type state int

const (
	sending state = iota // its put may or may not have arrived
	waiting              // it is in etcd at rev, behind others
	held                 // it is the lowest of its name, and its caller knows
	idle                 // it is the lowest, its hold was released, and it is kept for the next one (see linger.go)
	left                 // released or given up; its deletion is not confirmed yet
	gone                 // not in etcd, as far as anyone can tell
)

// ticket is one place in a queue.
//
// Its key is name/<lease hex>-<n>, directly under the name as etcd's own concurrency package has it, so that fleets
// can mix. The n is the ticket's alone while it may be in etcd, and is used again afterwards: a key that was deleted
// stays in etcd's index until the store is compacted, and whoever queues reads over it. See numberLocked for what
// makes that safe.
type ticket struct {
	line  *line
	lease *lease
	n     uint64
	after int64 // earlier tickets of the same key were gone by this revision
	key   string
	value string
	kind  kind

	// Guarded by the Session's mu.
	state     state
	rev       int64         // create revision: the fencing token; 0 while sending
	ahead     peer          // while waiting: the ticket of another Session that it waits for
	next      *ticket       // the ticket of this Session that waits for this one in memory
	guarded   bool          // its guard was given out: no hand-over before its deletion is confirmed
	ruled     bool          // it held, and was released, not lost
	handed    bool          // its hold was handed over in memory
	deletions deletions     // what is known of those sent
	goneAt    int64         // the revision as of which it is known to be gone
	changed   chan struct{} // closed at the next change of state, made when somebody waits for that
	stir      chan struct{} // asks the waiting caller to look again
	hold      *holdContext  // once held
	checking  *time.Timer   // a check that is due, see checkSoonLocked

	mod int64 // the revision of its value, as far as is known; of whoever has the turn to proclaim
}

// line holds a Session's tickets of one name, from the first to the last of them.
type line struct {
	s      *Session
	name   string
	prefix string

	// Guarded by the Session's mu.
	refs    int       // tickets that are not gone
	free    []uint64  // the n of tickets that are gone, of the lease numbered
	top     uint64    // the highest n given out under it
	of      *lease    // the lease that free and top are of
	holder  *ticket   // the one that holds, or idles
	vigil   *vigil    // who else queues, while that matters
	doomed  []*ticket // left, in that order
	goneAt  int64     // the revision of the last confirmed deletion
	flights int       // deletions under way
	last    error     // what the last deletion failed with

	asking bool         // who holds, see askWhoHolds
	seen   *LockedError // who was seen to hold
	seenAt instant      // when
}

func newLine(s *Session, name string) *line { return &line{s: s, name: name, prefix: name + "/"} }

// newTicket registers a ticket before its put is sent, so that clean-up can tell it from a stray at any time. Where the
// Session keeps the lock idle, that is resumed instead, and held. The two are one step: a ticket that idles never has
// one of its own Session behind it.
func (s *Session) newTicket(l *lease, k kind, name, value string) (t *ticket, resumed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := s.lines[name]
	if t := ln.resumeLocked(l, k); t != nil {
		return t, true
	}
	if ln == nil {
		ln = newLine(s, name)
		s.lines[name] = ln
	}
	ln.refs++
	n := ln.numberLocked(l)
	t = &ticket{line: ln, lease: l, n: n, after: ln.goneAt, key: ln.key(l, n), value: value, kind: k}
	l.tickets[t.key] = t
	return t, false
}

func (ln *line) key(l *lease, n uint64) string { return fmt.Sprintf("%s%x-%d", ln.prefix, l.id, n) }

// numberLocked chooses the n of the next ticket: that of one that is gone, where there is one.
//
// Why a name can be used again: what can still be under way for an earlier ticket of that name does no harm. A deletion
// names the ticket's create revision, and so removes that ticket or nothing. A put was answered, or else the name is
// burnt (see unsureLocked); should the etcd client have sent it twice all the same, the second copy finds the next
// ticket there and changes nothing, or comes before it and is taken for it, at the place where it is in the queue.
//
// A line counts from 1 again after it was forgotten, which it is when none of its tickets may be in etcd, and for each
// next lease. A call that comes late with the lease before has a number that nobody had, and the count stays.
func (ln *line) numberLocked(l *lease) uint64 {
	if l != ln.s.lease {
		l.top++
		return l.top
	}
	if ln.of != l {
		ln.of, ln.free, ln.top = l, nil, 0
	}
	for len(ln.free) > 0 {
		n := ln.free[len(ln.free)-1]
		ln.free = ln.free[:len(ln.free)-1]
		if n > l.burnt {
			return n
		}
	}
	ln.top = max(ln.top, l.burnt) + 1
	l.top = max(l.top, ln.top)
	return ln.top
}

// unsureLocked says that a request to put the ticket may arrive late, even after its deletion: from now on each renewal
// is followed by a sweep, and the name is not used again. Nor is any lower one, so that one number remembers them all.
func (t *ticket) unsureLocked() {
	t.lease.suspect = true
	t.lease.burnt = max(t.lease.burnt, t.n)
}

func (t *ticket) unsure() {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.unsureLocked()
}

// numberOfLocked is the n of key, 0 if it has not the form of a ticket that this Session has named under l.
func (l *lease) numberOfLocked(key string) uint64 {
	leaf := key[strings.LastIndexByte(key, '/')+1:]
	digits, ok := strings.CutPrefix(leaf, strconv.FormatInt(int64(l.id), 16)+"-")
	n, err := strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil || n > l.top || digits != strconv.FormatUint(n, 10) {
		return 0
	}
	return n
}

// direct reports whether key is a contender of the line's name. Keys further down belong to names that nest in it.
func (ln *line) direct(key string) bool {
	leaf, ok := strings.CutPrefix(key, ln.prefix)
	return ok && !strings.Contains(leaf, "/")
}

// own returns this Session's ticket of that key and generation, if it knows one. A ticket that has gone since the view
// is known no more; then goneAt is a revision, later than the view's, as of which it had.
func (t *ticket) own(p peer, v view) (o *ticket, goneAt int64) {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := t.lease.tickets[p.key]; o != nil && (o.rev == p.rev || o.rev == 0 && p.rev > o.after) {
		return o, 0
	}
	if t.line.goneAt > v.rev && t.lease.numberOfLocked(p.key) > 0 {
		return nil, t.line.goneAt
	}
	return nil, 0
}

// placed says that the ticket is in etcd, created at rev.
func (t *ticket) placed(rev int64) {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.state == sending {
		t.state, t.rev, t.mod, s.probe = waiting, rev, rev, t.key
	}
}

// waits says what the ticket waits for, if that is another Session's ticket, so that the renewal's read asks for it.
func (t *ticket) waits(ahead peer) {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.ahead = ahead
	if t.stir == nil {
		t.stir = make(chan struct{}, 1)
	}
}

// grant makes the ticket a hold. It fails with errRequeue if the ticket or its lease has gone meanwhile: a lease past
// its deadline grants nothing, whatever etcd still shows.
func (t *ticket) grant() error {
	s := t.line.s
	if !t.lease.alive() {
		return errRequeue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.grantLocked()
}

func (t *ticket) grantLocked() error {
	if t.state != waiting {
		return errRequeue
	}
	t.state, t.ahead, t.hold = held, peer{}, newHold(t.lease)
	t.line.holder, t.line.seen = t, nil
	t.line.keepVigilLocked()
	select {
	case t.line.s.holds <- struct{}{}:
	default:
	}
	return nil
}

// inherit is the hand-over in memory: t takes the hold from pred, its predecessor of the same Session, whose deletion
// is not confirmed yet.
//
// Why it is safe: any other contender's create revision is higher than t's, so while t's ticket is in etcd nobody
// else's can be the lowest but pred's, which is released. Both are on the same lease, so a crash removes both. A guard
// that was given out would stay true until pred's deletion is confirmed: then it must be waited for. Elections always
// wait, since everybody would still see pred as the leader. A hold that was lost is not handed on.
func (t *ticket) inherit(pred *ticket) (done bool, err error) {
	s := t.line.s
	if !t.lease.alive() {
		return false, errRequeue
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if pred.state != left || !pred.handsOverLocked(t) {
		return false, nil
	}
	pred.handed = true
	if err := t.grantLocked(); err != nil {
		return true, err
	}
	t.checkSoonLocked(0) // nobody has looked whether t's ticket is still in etcd
	return true, nil
}

// handsOverLocked reports whether the hold of t, which has left, goes on in memory as next's.
func (t *ticket) handsOverLocked(next *ticket) bool {
	return t.ruled && !t.guarded && t.kind.relay && !t.handed && next != nil && next.kind.relay && next.state == waiting
}

// behind registers t as the one that waits for pred. Two tickets wait for the same one only when the earlier of them has
// left the queue.
func (t *ticket) behind(pred *ticket) {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	pred.next = t
}

// fate returns what became of the ticket so far, and a channel that is closed at its next change of state.
func (t *ticket) fate() (now state, ruled bool, goneAt int64, changed <-chan struct{}) {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.state, t.ruled, t.goneAt, t.changedLocked()
}

func (t *ticket) isGone() bool {
	now, _, _, _ := t.fate()
	return now == gone
}

// changedLocked returns a channel that is closed at the ticket's next change of state.
func (t *ticket) changedLocked() <-chan struct{} {
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// becomeLocked changes the state and tells whoever waits for that.
func (t *ticket) becomeLocked(to state) {
	t.state = to
	if t.line.holder == t {
		t.line.holder = nil
	}
	if t.checking != nil {
		t.checking.Stop()
	}
	t.tellLocked()
}

func (t *ticket) tellLocked() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// nudge asks the waiting caller to look at the queue again.
func (t *ticket) nudge() {
	s := t.line.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.nudgeLocked()
}

func (t *ticket) nudgeLocked() {
	select {
	case t.stir <- struct{}{}:
	default: // it has been asked already, or never waited
	}
}
