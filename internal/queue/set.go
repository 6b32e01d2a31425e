package queue

import (
	"context"
	"slices"
	"sync"
)

// This file has what tickets of several names have in common that are taken together, all or none. A ticket by itself is a set
// of one.
//
// One Txn puts them all, so they have one create revision. That is what makes it free of deadlock: every wait goes from a
// ticket to one of a lower revision, also where the two belong to different sets, so there is no cycle, in whatever order
// callers name their locks. Two Txns could each be ahead of the other in one queue.
//
// Their hold is one: it begins when the last of them is first in its queue, ends when one of them is lost, and its release
// is one Txn again. None of them is handed off in memory: it would hold, and the others not.

// set is tickets of different names that are put together, in the order of the names. Each stands for the whole: what its
// holder can do with one (release.go) is done with all.
type set []*Ticket

// together is what the tickets of a set of several share.
type together struct {
	set

	// Guarded by the Tickets' mu.
	behind set   // those that have not become first yet
	at     int64 // the latest revision as of which one of them did
}

// set is the ticket and those that were put with it.
func (t *Ticket) set() set {
	if t.all == nil {
		return set{t}
	}
	return t.all.set
}

// of is the queue's own part.
func (s set) of() *Tickets { return s[0].group.q }

// newSet registers a ticket of each name before its put is sent, so that clean-up can tell it from a stray at any time.
// Where the Session keeps the lock idle, that is taken up instead, and held. The two are one step: a ticket that idles never
// has one of its own Session behind it. Several tickets take up none: what idles leaves, and is waited for.
func (q *Tickets) newSet(l *Lease, k *Kind, names []string, value string) (s set, takenUp *Ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range names {
		if t := q.groups[name].takeUpLocked(k); t != nil {
			return nil, t
		}
		s = append(s, q.newTicketLocked(l, k, name, value))
	}
	if len(s) > 1 {
		all := &together{set: s, behind: slices.Clone(s)}
		for _, t := range s {
			t.all = all
			t.beginTurnLocked() // for the removal of another, however early
		}
	}
	return s, nil
}

// queue is for whoever waits.
func (s set) queue(ctx context.Context) (*Contender, error) {
	behind, err := s.enqueue(ctx)
	if err == nil {
		err = s.wait(ctx, behind)
	}
	return nil, err
}

// wait waits for all turns at once, each as for a lock of its own. So it takes as long as the longest wait, and no look at
// the others stands between the last of them and the hold.
func (s set) wait(ctx context.Context, behind []ahead) error {
	if len(s) == 1 {
		return s[0].awaitTurn(ctx, behind[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, len(s))
	var busy sync.WaitGroup
	for i, t := range s {
		turn := func() {
			if err := t.awaitTurn(ctx, behind[i]); err != nil {
				failed <- err
				cancel()
			}
		}
		if behind[i].none() {
			turn()
		} else {
			busy.Go(turn)
		}
	}
	busy.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// unseen is what is ahead of a ticket for which nobody has looked yet: it is behind itself.
func (t *Ticket) unseen() ahead { return ahead{near: generation{t.key, t.rev}} }

func (s set) unseen() []ahead {
	behind := make([]ahead, len(s))
	for i, t := range s {
		behind[i] = t.unseen()
	}
	return behind
}

// awaitTurn waits for the turn of one ticket.
func (t *Ticket) awaitTurn(ctx context.Context, a ahead) (err error) {
	if a == t.unseen() {
		if a, err = t.look(ctx, 0); err != nil {
			return err
		}
	}
	t.warnOf(a.near.key)
	if t.kind.Elects && (t.group.class(a.near.key) != Exclusive || t.group.class(a.far.key) != Exclusive) {
		return ErrShared
	}
	return t.wait(ctx, a)
}

// isFirst says that one ticket of the set was there and first, as of revision at.
func (s *together) isFirst(at int64) {
	if s == nil {
		return
	}
	q := s.of()
	q.mu.Lock()
	defer q.mu.Unlock()
	s.at = max(s.at, at)
}

// blocker is who holds, for the error of a caller that gives up, and in which queue.
func (s set) blocker() (*Contender, string) {
	q, t := s.of(), s[0]
	if t.all != nil {
		q.mu.Lock()
		behind := t.all.behind
		q.mu.Unlock()
		if len(behind) == 0 {
			return nil, ""
		}
		t = behind[0]
	}
	return t.blocker(), t.group.Name
}
