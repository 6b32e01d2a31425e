package etcdlock

import (
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// Stats is what a Session has and has had to do, as Session.Stats found it. Its numbers are taken one after another, not at
// one instant. Those of the second group count from NewSession on.
type Stats struct {
	Waiting     int // calls that queue or try
	Held        int // holds, of LockAll one for each name; a lock that lingers is none
	Unconfirmed int // released tickets whose deletion etcd has not confirmed: others may wait for them
	Working     int // functions of Do and Run that run
	Overruns    int // of these, those whose hold has ended

	// Overrun is the function that has run on for longest after the end of its hold; the zero Overrun if there is none.
	Overrun Overrun

	Lease     clientv3.LeaseID // the newest
	LeaseLeft time.Duration    // how long it can be relied on without another renewal; 0 if it is over
	Renewed   time.Duration    // since the last renewal that etcd acknowledged was sent, or the grant
	LastError error            // what the last renewal, or request for a lease, failed with; nil after a success

	Acquired uint64 // calls that got a hold
	InMemory uint64 // of these, those whose hold came from another hold of this Session in memory
	Busy     uint64 // tries that found somebody else
	Canceled uint64 // calls whose context ended first
	Failed   uint64 // calls that etcd refused
	Released uint64 // holds that were given back in time
	Lost     uint64 // holds that were not: the sum of the next three

	LostByDeadline, LostByRevoke, LostByRemoval uint64

	Renewals        uint64 // that etcd acknowledged
	RenewalFailures uint64 // attempts that failed, while their renewal may not have
	Replacements    uint64 // leases that took the place of a lost one
	EventsDropped   uint64 // that no hook was told of, because a hook blocked
}

// Stats returns numbers about the Session, without a request. It is cheap: a collector of metrics may ask at each scrape.
// After Close the counts stand still.
func (s *Session) Stats() Stats {
	c := s.tickets.Counts()
	st := Stats{
		Waiting: c.Waiting, Held: c.Held, Unconfirmed: c.Leaving, Working: c.Working,
		Acquired: c.Waits[queue.Got], InMemory: c.Memory, Busy: c.Waits[queue.Busy], Canceled: c.Waits[queue.Canceled],
		Failed: c.Waits[queue.Failed], Released: c.Holds[queue.Released],
		LostByDeadline: c.Holds[queue.Deadline], LostByRevoke: c.Holds[queue.Revoked], LostByRemoval: c.Holds[queue.Removal],
		EventsDropped: s.watching.dropped(),
	}
	st.Lost = st.LostByDeadline + st.LostByRevoke + st.LostByRemoval
	n, longest := s.tickets.Overruns()
	if st.Overruns = n; n > 0 {
		st.Overrun = overrun(longest)
	}
	s.leases.stats(&st)
	return st
}

// stats adds what is known of the lease.
func (ls *leases) stats(st *Stats) {
	ls.mu.Lock()
	l := ls.lease
	st.LastError, st.Renewals, st.RenewalFailures, st.Replacements = ls.lastErr, ls.renewals, ls.failures, ls.replacements
	ls.mu.Unlock()
	st.Lease, st.Renewed = l.ID, l.Age()
	if l.Alive() {
		st.LeaseLeft = l.Left()
	}
}
