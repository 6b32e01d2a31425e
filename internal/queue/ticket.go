package queue

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// Kind is what the tickets of one primitive differ in from those of another.
type Kind struct {
	Name     string // what hooks and metrics call it
	Class    Class
	Weight   int64 // 1 unless the class counts
	Released error // the cause of a hold that was released
	Handoff  bool  // a hold may go on in memory to the Session's next ticket, and linger; for a class that holds alone
	Elects   bool  // others take the first ticket of the queue for the leader's: nobody may share a turn in it
}

// Ticket is one place in a queue: one generation of a key in etcd.
//
// Its key is name/<lease hex>-<n>, directly under the name as etcd's own concurrency package has it, so that fleets can
// mix; the class of a shared one comes before the lease. The n is the ticket's alone while it may be in etcd, and is used
// again afterwards, see names.go.
type Ticket struct {
	// These never change.
	group *group
	lease *Lease
	kind  *Kind
	n     uint64
	after int64 // earlier tickets of the same key were gone by this revision
	key   string
	all   *together // with others; nil for a ticket by itself

	claimed bool // it was of an earlier Session: see resume.go

	// Guarded by the Tickets' mu. Some are read without: rev, turn, memory and value by the caller that queues, since nobody else
	// writes them until it holds; rev once it is known, and hold and memory once the ticket is granted, by anybody, since they do
	// not change any more; stay by a later release, which root's Hold.mu puts after the first; version by Proclaim, in turn.
	state     state
	guarded   bool          // its guard was given out: no handoff before its deletion is confirmed
	byHolder  bool          // it held, and was released, not lost
	handedOff bool          // its hold went on in memory
	memory    bool          // its own hold is one that went on so
	holds     bool          // it holds, and the end of that was not counted yet
	work      work          // whether a function of its caller runs under it
	rev       int64         // create revision: the fencing token; 0 while sending
	turn      *turn         // while it waits for its turn
	next      *Ticket       // the ticket of this Session that waits for this one in memory
	hold      *lease.Hold   // once held
	since     lease.Instant // when it began to hold, if somebody observes
	checking  *time.Timer   // a check that is due, see checkSoonLocked
	want      chan struct{} // once its holder has asked who waits: closed when somebody does; one for all of a set
	stay      *stay         // once staying
	deletions deletions     // what is known of those sent
	goneAt    int64         // the revision as of which it is known to be gone
	changed   chan struct{} // see changedLocked
	asked     []string      // the keys of numbers that it has asked for, see slot.go
	mod       int64         // the revision at which we wrote it last
	value     string        // what with; a Mutex's never changes
	version   int64         // how often it had been written by then
	pending   []string      // values of Proclaims that were not answered: one of them may have been written since
}

// turn is what a ticket needs while it waits for its turn. The Tickets' mu guards what is in it. The waiting caller may read
// recheck and drain without: nobody else changes them.
type turn struct {
	began    lease.Instant
	near     generation    // the ticket of another Session that it waits for, which checks ask for, too
	drain    *drain        // it waits for readers to leave
	counting bool          // it waits for the census to make room
	recheck  chan struct{} // asks the waiting caller to look again
	opening  func()        // ends its opening of watches, for the same reason; see opens
}

// generation is one life of a key, from its creation to its deletion: a key can be created again, by concurrency for one.
type generation struct {
	key string
	rev int64 // create revision
}

func (q *Tickets) newTicketLocked(l *Lease, k *Kind, name, value string) *Ticket {
	g := q.groupLocked(name)
	n := g.counter.takeLocked(l, l == q.lease)
	t := &Ticket{group: g, lease: l, kind: k, n: n, after: g.goneAt, key: g.ticket(k, l.ID, n), value: value}
	g.addLocked(t)
	return t
}

// addLocked registers a ticket.
func (g *group) addLocked(t *Ticket) {
	t.lease.tickets[t.key] = t
	g.refs++
	if c := t.censusLocked(); c != nil {
		c.sending++
	}
}

// own returns this Session's ticket of that key and generation, if it knows one. A ticket that has gone since rev, as of
// which p was seen, is known no more; then goneAt is a later revision as of which it had.
func (t *Ticket) own(p generation, rev int64) (o *Ticket, goneAt int64) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	o = t.lease.tickets[p.key]
	if o != nil && o.state == staying {
		return nil, 0 // as if it were another's: nobody of this Session holds it or hands it on
	}
	if o != nil && (o.rev == p.rev || o.rev == 0 && p.rev > o.after) {
		return o, 0
	}
	if t.group.goneAt > rev && t.lease.numberLocked(p.key) > 0 {
		return nil, t.group.goneAt
	}
	return nil, 0
}

// placed says that the ticket is in etcd, created at rev.
func (t *Ticket) placed(rev int64) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.placedLocked(rev)
}

func (t *Ticket) placedLocked(rev int64) {
	if t.moveLocked(waiting) {
		t.rev, t.mod, t.version, t.group.q.readable = rev, rev, 1, t.key
		t.tellLocked() // whoever waits for it knows another revision of it, perhaps
	}
}

// beginTurn is for a ticket that does not hold at once.
func (t *Ticket) beginTurn() {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.beginTurnLocked()
}

func (t *Ticket) beginTurnLocked() {
	if t.turn == nil {
		t.turn = &turn{began: lease.Now(), recheck: make(chan struct{}, 1)}
	}
}

// waitsFor says which ticket this one waits for, if that is another Session's, so that checks ask for it, too.
func (t *Ticket) waitsFor(near generation) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.turn.near = near
}

// recheckNow asks the waiting caller to look at the queue again.
func (t *Ticket) recheckNow() {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	t.recheckLocked()
}

func (t *Ticket) recheckLocked() {
	if t.turn == nil {
		return
	}
	select {
	case t.turn.recheck <- struct{}{}:
		if t.turn.opening != nil {
			t.turn.opening()
		}
	default: // it has been asked already
	}
}

// Hold is the context of the hold, once Acquire, Try or Resume has returned the ticket.
func (t *Ticket) Hold() *lease.Hold { return t.hold }

// Key is the ticket's key in etcd.
func (t *Ticket) Key() string { return t.key }

// Keys are the keys of the ticket and of those that were put with it, in the order of their names.
func (t *Ticket) Keys() (keys []string) {
	for _, t := range t.set() {
		keys = append(keys, t.key)
	}
	return keys
}

// Names are the names that these queue for.
func (t *Ticket) Names() (names []string) {
	for _, t := range t.set() {
		names = append(names, t.group.Name)
	}
	return names
}

// Value is what it was put with. It takes no mutex, so it is not for an Election's ticket, whose value Proclaim changes.
func (t *Ticket) Value() string { return t.value }

// Token is its create revision.
func (t *Ticket) Token() int64 { return t.rev }
