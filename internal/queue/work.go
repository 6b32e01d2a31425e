package queue

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file knows of functions of the callers that run under a hold, and of those that run on after it has ended.

// Overrun is a function that runs although its hold has ended.
type Overrun struct {
	Ticket   *Ticket
	For      time.Duration // since the end of the hold
	Returned bool          // it has returned by now
}

// work is whether a function of the caller runs under a hold, which is released after it.
type work uint8

const (
	workless work = iota
	working
	worked // it has returned: the release is next
)

// overrun is one that runs.
type overrun struct {
	from  lease.Instant
	late  *time.Timer // fires when others may hold; nil without an observer
	begun bool        // the observer knows
}

// BeginWork says that a function begins to run under the hold, and EndWork that it has returned. Once the Session has
// begun to end none begins any more: then BeginWork says false.
func (t *Ticket) BeginWork() bool {
	q := t.group.q
	begun := q.tasks.Begin(t.hold.Context) // the one inside: Close does not ask the clock
	q.mu.Lock()
	defer q.mu.Unlock()
	if !begun {
		t.work = worked
		return false
	}
	q.tally.working++
	t.work = working
	if !t.holds {
		t.runsOnLocked(lease.Now())
	}
	return true
}

// EndWork is the end of what BeginWork began.
func (t *Ticket) EndWork() {
	q := t.group.q
	defer q.tasks.End(t.hold.Context) // last, since Close goes on then
	q.mu.Lock()
	q.tally.working--
	t.work = worked
	o := q.overruns[t]
	delete(q.overruns, t)
	told := o != nil && o.begun
	q.mu.Unlock()
	if o != nil && o.late != nil {
		o.late.Stop()
	}
	if told {
		q.observer.Overran(Overrun{Ticket: t, For: lease.Now().Sub(o.from), Returned: true})
	}
}

// runsOnLocked says that the hold has ended, at from, and the function runs on. It is no news before the lease's margin has
// passed, in which nobody else can hold yet, unless somebody has removed the ticket.
func (t *Ticket) runsOnLocked(from lease.Instant) {
	q := t.group.q
	o := &overrun{from: from}
	q.overruns[t] = o
	if q.observer == nil {
		return
	}
	o.late = time.AfterFunc(t.lease.Margin()-lease.Now().Sub(from), func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.overruns[t] == o {
			o.begun = true
			q.observer.Overran(Overrun{Ticket: t, For: lease.Now().Sub(from)})
		}
	})
}

// Overruns returns how many functions run although their holds have ended, and the one that has done so for longest.
func (q *Tickets) Overruns() (n int, longest Overrun) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := lease.Now()
	for t, o := range q.overruns {
		if d := now.Sub(o.from); longest.Ticket == nil || d > longest.For {
			longest = Overrun{Ticket: t, For: d}
		}
	}
	return len(q.overruns), longest
}

// worked reports whether a function runs or ran under the hold of the set, which is that of its first ticket.
func (s set) worked() bool { return s[0].work != workless }
