package queue

import (
	"cmp"
	"context"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file counts permits. A permit needs news of all before it, since any of those that hold may leave first and the
// others may hold for ever. So a Session counts once for all its tickets of a class in a queue: the answer to each put tells
// who is ahead, and while one of them waits, one watch on the keys of the class tells who goes.
//
// Puts are not watched: nobody comes before a ticket that exists. So a release costs each Session that waits one event, and
// by the time it comes, all that it has to be compared with is there: no read stands between it and the next hold.

// census is the permits of one class that this Session knows of: all that are ahead of its own, and perhaps some that have
// gone. It never knows too few. What makes that so:
//
//   - What is known is generations: a deletion counts only for what was created before it.
//   - A list replaces what is known of those created up to where it reaches, and tells nothing of later ones.
//   - A deletion that is told while the answer to a put is under way is kept for that answer, which is as of before.
//   - A revision is taken in as a whole before anybody is told that it fits: its own key may be in it.
type census struct {
	// These never change.
	g     *group
	class Class

	// Guarded by the Tickets' mu.
	places  []place          // in the order of their creation
	at      map[string]int64 // their create revisions, by key
	listed  int64            // the revision of the newest list ...
	upTo    int64            // ... which tells of all that were created up to this one
	told    int64            // the newest revision that the watch has told of, or of the list it began with
	due     int64            // a revision that the watch should have told of: a list has shown it
	crossed int64            // the newest revision as of which a ticket of this Session was crossed off
	sending int              // tickets whose put is not answered, and lists that are read beside the watch
	deleted map[string]int64 // while there are any: the last deletion of each key that was told
	waiting int              // tickets that wait
	drained map[*Ticket]bool // tickets that wait until all before them have left, see drain.go
	stop    context.CancelFunc
	err     error // why the last run of follow ended
}

// place is one permit in the queue.
type place struct {
	generation
	weight int64
}

// censusLocked is the census that counts t, nil if t is not counted.
func (t *Ticket) censusLocked() *census {
	if !t.kind.Class.counted() {
		return nil
	}
	return t.group.censusLocked(t.kind.Class)
}

// censusLocked is the census of a class.
func (g *group) censusLocked(class Class) *census {
	c := g.census[class]
	if c == nil {
		c = &census{g: g, class: class, at: map[string]int64{}, deleted: map[string]int64{}}
		if g.census == nil {
			g.census = map[Class]*census{}
		}
		g.census[class] = c
	}
	return c
}

// counting is the read of all tickets of a class, none if they are not counted.
func (g *group) counting(c Class) []clientv3.Op {
	if !c.counted() {
		return nil
	}
	return []clientv3.Op{g.listing(c)}
}

// listing is the read of all tickets of a class.
func (g *group) listing(c Class, opts ...clientv3.OpOption) clientv3.Op {
	keys := c.keys(g.prefix)
	return clientv3.OpGet(keys.from, append(opts, clientv3.WithRange(keys.to), clientv3.WithKeysOnly())...)
}

// count takes in what the request that put t, or found it there, has read of its class, as of revision rev; self is t's own
// place if it was put after that.
func (t *Ticket) count(answers []*pb.ResponseOp, rev int64, self generation) {
	if len(answers) == 0 {
		return
	}
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	c := t.censusLocked()
	places := c.placesOf(answers[0].GetResponseRange().Kvs)
	if self.rev > 0 {
		places = append(places, place{self, t.kind.Weight})
	}
	c.takeLocked(places, rev, rev)
	c.wakeLocked()
}

// placesOf are the permits among kvs, in the order of their creation. Their values may be missing.
func (c *census) placesOf(kvs []*mvccpb.KeyValue) []place {
	var places []place
	for _, kv := range kvs {
		if key := string(kv.Key); c.g.direct(key) {
			rest := key[len(c.g.prefix)+len(c.class.word):]
			places = append(places, place{generation{key, kv.CreateRevision}, permitWeight(rest, c.class.limit)})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.rev, b.rev) })
	return places
}

// takeLocked takes in a list: all that were there as of revision rev and had been created up to upTo. It reports whether
// somebody who was known is missing there.
func (c *census) takeLocked(list []place, rev, upTo int64) (missing bool) {
	stale := rev < c.listed // of what was created up to c.upTo, a later list has told
	known := make(map[string]place, len(list))
	for _, p := range list { // of what was created up to c.upTo, who is not known has gone
		if c.deleted[p.key] < p.rev && (p.rev > c.upTo || c.at[p.key] == p.rev) {
			known[p.key] = p
		}
	}
	for _, p := range c.places {
		if p.rev > upTo || stale && p.rev <= c.upTo {
			known[p.key] = p
		} else if known[p.key].rev != p.rev {
			missing = true
		}
	}
	c.places = slices.AppendSeq(c.places[:0], maps.Values(known))
	slices.SortFunc(c.places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.key, b.key))
	})
	clear(c.at)
	for _, p := range c.places {
		c.at[p.key] = p.rev
	}
	if !stale {
		c.listed, c.upTo = rev, upTo
	}
	return missing
}

// goneLocked takes in that a key was deleted at revision at.
func (c *census) goneLocked(key string, at int64) {
	if c.sending > 0 {
		c.deleted[key] = at
	} else {
		clear(c.deleted)
	}
	if rev, known := c.at[key]; known && rev < at {
		c.dropLocked(generation{key, rev})
	}
}

func (c *census) dropLocked(gone generation) {
	delete(c.at, gone.key)
	c.places = slices.DeleteFunc(c.places, func(p place) bool { return p.generation == gone })
}

// crossOffLocked takes in that a ticket of this Session is gone as of revision at. What else happened up to then the watch
// will tell, so who holds on the strength of this has to be checked.
func (c *census) crossOffLocked(t *Ticket, at int64) {
	if c.at[t.key] == t.rev && t.rev > 0 {
		c.dropLocked(generation{t.key, t.rev})
		c.crossed = max(c.crossed, at)
		c.wakeLocked()
	}
}

// wakeLocked tells those who wait and fit, in the order of the queue.
func (c *census) wakeLocked() {
	c.wakeDrainedLocked()
	if !c.class.counted() {
		return // readers wait for none of their own
	}
	for _, p := range c.places[:c.holdersOf(c.places)] {
		if t := c.g.q.lease.tickets[p.key]; t != nil && t.rev == p.rev && t.turn != nil && t.turn.counting {
			t.recheckLocked()
		}
	}
}

// fitsLocked reports whether t and all before it fit together, or whether t has gone. That t was there is known as of
// revision seen.
func (c *census) fitsLocked(t *Ticket) (fits, gone bool, seen int64) {
	seen = c.told
	if t.rev <= c.upTo {
		seen = max(seen, c.listed)
	}
	if c.at[t.key] != t.rev {
		return false, true, seen
	}
	last := c.places[c.holdersOf(c.places)-1]
	return t.rev <= last.rev, false, seen
}

// holdersOf is how many of these hold, the first permits of the queue.
func (c *census) holdersOf(queue []place) int {
	return holders(len(queue), func(i int) (Class, int64) { return c.class, queue[i].weight })
}
