package etcdlock

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// This file has the two things that the queue is made of in memory. A ticket is one place in the queue of one name: a
// key in etcd, used once. A line is what a Session knows of one name: its own tickets there.
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
// can mix. The n is never used again, so that deleting a ticket is always safe, however late the request arrives.
type ticket struct {
	line  *line
	lease *lease
	key   string
	value string
	relay bool // may be handed over in memory: a Mutex's ticket, not an Election's

	// Guarded by the Session's mu.
	state    state
	rev      int64         // create revision: the fencing token; 0 while sending
	ahead    peer          // while waiting: the ticket of another Session that it waits for
	next     *ticket       // the ticket of this Session that waits for this one in memory
	guarded  bool          // its guard was given out: no hand-over before its deletion is confirmed
	ruled    bool          // it held, and was released, not lost
	handed   bool          // its hold was handed over in memory
	sent     int           // deletions sent
	deleted  bool          // a deletion found it in etcd
	refused  error         // what its deletion failed with, if no retry will mend that
	goneAt   int64         // the revision as of which it is known to be gone
	changed  chan struct{} // closed at the next change of state, made when somebody waits for that
	stir     chan struct{} // asks the waiting caller to look again
	hold     *holdContext  // once held
	checking *time.Timer   // a check that is due, see grantThenCheck

	blocker *LockedError // who was seen to hold, for the error of a caller that gives up; the caller's own
}

// line holds a Session's tickets of one name, from the first to the last of them.
type line struct {
	s      *Session
	name   string
	prefix string

	// Guarded by the Session's mu.
	refs    int       // tickets that are not gone
	holder  *ticket   // the one that holds, or idles
	vigil   *vigil    // who else queues, while that matters
	doomed  []*ticket // left, in that order
	goneAt  int64     // the revision of the last confirmed deletion
	flights int       // deletions under way
	last    error     // what the last deletion failed with
}

func newLine(s *Session, name string) *line { return &line{s: s, name: name, prefix: name + "/"} }

// newTicket registers a ticket before its put is sent, so that clean-up can tell it from a stray at any time. Where the
// Session keeps the lock idle, that is taken up instead, and held. The two are one step: a ticket that idles never has
// one of its own Session behind it.
func (s *Session) newTicket(l *lease, k kind, name, value string) *ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := s.lines[name]
	if t := ln.resumeLocked(l, k); t != nil {
		return t
	}
	if ln == nil {
		ln = newLine(s, name)
		s.lines[name] = ln
	}
	ln.refs++
	s.serial++
	t := &ticket{
		line: ln, lease: l, key: fmt.Sprintf("%s%x-%d", ln.prefix, l.id, s.serial), value: value, relay: k.relay}
	l.tickets[t.key] = t
	return t
}

// namedLocked reports whether key has the form of a ticket that this Session named under l.
func (s *Session) namedLocked(l *lease, key string) bool {
	leaf := key[strings.LastIndexByte(key, '/')+1:]
	n, ok := strings.CutPrefix(leaf, strconv.FormatInt(int64(l.id), 16)+"-")
	serial, err := strconv.ParseUint(n, 10, 64)
	return ok && err == nil && serial > 0 && serial <= s.serial && n == strconv.FormatUint(serial, 10)
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
	if o := t.lease.tickets[p.key]; o != nil && (o.rev == p.rev || o.rev == 0) {
		return o, 0
	}
	if t.line.goneAt > v.rev && s.namedLocked(t.lease, p.key) {
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
		t.state, t.rev, s.probe = waiting, rev, t.key
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
	t.line.holder = t
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
	if pred.state != left || !pred.ruled || pred.guarded || !pred.relay || !t.relay || pred.handed {
		return false, nil
	}
	pred.handed = true
	return true, t.grantLocked()
}

// follow registers t as the one that waits for pred. Two tickets follow the same one only when the earlier of them has
// left the queue.
func (t *ticket) follow(pred *ticket) {
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
