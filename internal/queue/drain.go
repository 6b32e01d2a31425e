package queue

import "context"

// This file waits for readers to leave, for a ticket that holds alone.
//
// They may leave in any order, and by near and far (see wait.go) a writer looks at the queue whenever the newest of them
// leaves: behind many, as often as there are readers. So where the two nearest are readers, the ticket has the readers
// counted as permits are (see census.go), and waits for everybody else as a reader does, by near and far in the gates of a
// reader. Whoever was a reader ahead is in the first list; nobody comes before a ticket that exists; so once that list is
// empty, no read stands between the last release and the hold.

// drain is what a ticket knows that waits for readers to leave. It belongs to the goroutine that waits.
type drain struct {
	seen  int64 // the revision as of which the ticket was there
	known bool  // all readers ahead are known, and perhaps some that have gone
}

// draining is what it knows of the readers that it waits for, nil if it waits for none.
func (t *Ticket) draining() *drain {
	if t.turn == nil {
		return nil
	}
	return t.turn.drain
}

// drains reports whether the ticket is behind so many readers that they had better be counted. Tickets that are taken together
// are granted together, which is another wait.
func (t *Ticket) drains(a ahead) bool {
	return t.draining() == nil && t.kind.Class.alone() && t.all == nil && !a.alone() &&
		t.group.class(a.near.key) == Reader && t.group.class(a.far.key) == Reader
}

// startDrain has the readers counted until stop is called. Where they are counted already, for a ticket further ahead, those
// behind that one have yet to be listed.
func (t *Ticket) startDrain() (stop func(), list bool) {
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c := t.group.censusLocked(Reader)
	t.turn.drain = new(drain)
	if c.drained == nil {
		c.drained = map[*Ticket]bool{}
	}
	c.drained[t] = true
	list = c.stop != nil
	c.joinLocked()
	return func() {
		q.mu.Lock()
		delete(c.drained, t)
		q.mu.Unlock()
		c.leave()
	}, list
}

// listReaders lists those ahead, beside whoever follows them.
func (t *Ticket) listReaders(ctx context.Context) error {
	ctx, release := t.lease.bound(ctx)
	defer release()
	q := t.group.q
	q.mu.Lock()
	c := t.group.census[Reader]
	c.sending++ // what is told before the answer is kept for it
	q.mu.Unlock()
	kvs, _, rev, err := c.read(ctx, false)
	q.mu.Lock()
	defer q.mu.Unlock()
	c.sending--
	if err == nil {
		c.takeLocked(c.placesOf(kvs), rev, rev)
		c.wakeLocked()
	}
	return err
}

// drainedLocked is what the census says to a ticket that waits for readers to leave.
func (t *Ticket) drainedLocked() room {
	c := t.group.census[Reader]
	d := t.draining()
	d.known = d.known || c.upTo >= t.rev
	return room{
		fits: d.known && c.emptyUpToLocked(t.rev), seen: d.seen, crossed: max(c.told, c.crossed), err: c.err,
		first: c.firstLocked(),
	}
}

// emptyUpToLocked reports whether nobody is known that was created before rev.
func (c *census) emptyUpToLocked(rev int64) bool { return len(c.places) == 0 || c.places[0].rev > rev }

func (c *census) firstLocked() generation {
	if len(c.places) == 0 {
		return generation{}
	}
	return c.places[0].generation
}

// wakeDrainedLocked tells those whose readers have all left; or all, if nothing more will be told.
func (c *census) wakeDrainedLocked() {
	for t := range c.drained {
		if c.err != nil || c.emptyUpToLocked(t.rev) {
			t.recheckLocked()
		}
	}
}
