package etcdlock

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file deletes the doomed. A flight is a run of attempts, in a goroutine of the Session (the first of them may be
// the releasing caller's own), that goes on until etcd has confirmed or the lease is over.

// dueLocked decides whether the doomed need a flight of their own now; the caller then flies it. Otherwise the flight
// under way takes them when it comes back, unless it is urgent. Each flight carries every deletion that is not
// confirmed, the oldest first: a later ticket must not be seen to go before an earlier one that was released before it.
func (ln *line) dueLocked(urgent bool) bool {
	due := ln.flights == 0 || urgent && ln.flights < 8 && len(ln.doomed) <= maxOps
	if due {
		ln.flights++
	}
	return due
}

// flyLocked starts a flight in the background.
func (ln *line) flyLocked() {
	if !ln.s.spawnLocked(ln.fly) {
		ln.flights-- // the Session is closed: the revoked lease takes the tickets
	}
}

// fly deletes until nothing is left to delete.
func (ln *line) fly() {
	s := ln.s
	for n := 0; ; n++ {
		more, err := ln.attempt(s.back, s.patience(n))
		switch {
		case err == nil && !more:
			return
		case err == nil:
			n = -1
		case !sleep(s.back, min(20*time.Millisecond<<min(n, 6), time.Second)):
			s.mu.Lock()
			ln.flights--
			s.mu.Unlock()
			return
		}
	}
}

// attempt sends one Txn of deletions. The flight has ended when it returns without an error and without more to do.
func (ln *line) attempt(ctx context.Context, limit time.Duration) (more bool, err error) {
	s := ln.s
	s.mu.Lock()
	ln.buryDoomedLocked()
	batch := slices.Clone(ln.doomed[:min(len(ln.doomed), max(s.partSize()-1, 1))]) // each is a Txn of its own, inside
	if len(batch) == 0 {
		ln.flights--
		s.mu.Unlock()
		return false, nil
	}
	ops := make([]clientv3.Op, len(batch))
	for i, t := range batch {
		t.deletions.out++
		ops[i] = t.deletion()
	}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, limit)
	start := now()
	found, at, err := s.delete(ctx, ops)
	late := s.late(now().sub(start))
	cancel()

	s.mu.Lock()
	defer s.mu.Unlock()
	ln.last = unanswered(err)
	smaller := s.tooMuch(err, len(ops))
	for i, t := range batch {
		d := &t.deletions
		d.out--
		switch {
		case smaller: // refused, so nothing of it is under way
		case err == nil:
			if found[i] {
				d.found = true
			} else if late {
				d.unknown = true
			}
			t.goneLocked(at)
			if d.out == 0 && !d.found && !d.unknown {
				s.pokeKeep() // somebody removed it: also the one that took the hold over in memory?
			}
		case transient(err):
			d.unknown = true
		default:
			d.refused = err // tried again all the same: permissions come back
		}
		t.tellLocked()
	}
	switch {
	case smaller:
		return true, nil // again, with fewer
	case err != nil:
		return true, err
	}
	if ln.buryDoomedLocked(); len(ln.doomed) == 0 {
		ln.flights--
		return false, nil
	}
	return true, nil
}

// deletions is what is known of the requests to delete one ticket. Several can be under way at once, and one answer
// alone tells little: the ticket is gone, but who removed it shows only when all have been answered.
type deletions struct {
	out     int   // under way
	found   bool  // one of them found the ticket
	unknown bool  // one may have found it: it was not answered, or so late that the etcd client may have repeated it
	refused error // what etcd said that no retry will mend
}

// deletion removes this ticket, and no later one of the same name however late it arrives. A ticket whose put has not
// been answered has no revision to go by; nor will there be a later one of its name.
func (t *ticket) deletion() clientv3.Op {
	if t.rev == 0 {
		return clientv3.OpDelete(t.key)
	}
	exists := clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)
	return clientv3.OpTxn([]clientv3.Cmp{exists}, []clientv3.Op{clientv3.OpDelete(t.key)}, nil)
}

// refusedLocked reports whether no retry will mend the ticket's deletion.
func (t *ticket) refusedLocked() bool { return t.deletions.refused != nil }

// delete sends deletions in one request and tells which of them found their key, and the revision.
func (s *Session) delete(ctx context.Context, ops []clientv3.Op) (found []bool, at int64, err error) {
	if len(ops) == 1 && ops[0].IsTxn() {
		resp, err := s.client.Do(ctx, ops[0])
		if err != nil {
			return nil, 0, err
		}
		return []bool{resp.Txn().Succeeded}, resp.Txn().Header.Revision, nil
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, 0, err
	}
	for _, r := range resp.Responses {
		found = append(found, r.GetResponseTxn().GetSucceeded() || r.GetResponseDeleteRange().GetDeleted() > 0)
	}
	return found, resp.Header.Revision, nil
}

// buryDoomedLocked drops from the list what is confirmed, and what went with its lease.
func (ln *line) buryDoomedLocked() {
	rest := ln.doomed[:0]
	for _, t := range ln.doomed {
		if t.state == left {
			rest = append(rest, t)
		}
	}
	clear(ln.doomed[len(rest):])
	ln.doomed = rest
}
