package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file has Sessions that leave places taken and Sessions that take them up: Orphan, WithLease and Resume. Who takes up
// keeps to the one condition of Resume: what it takes up was written last by a Session that has ended, or is nobody's because
// a Resume on a given lease was given up.

// writer is who has written a key: what a Session does is known by its lease and its client, for one that is given a lease
// gets a client of its own.
type writer struct {
	lease  int64
	client int
}

// claim is a Session's Resume of a ticket.
type claim struct {
	id ticketID
	by writer
}

// left is what is known of Sessions that have ended and did not revoke their leases.
type left struct {
	by    map[int64]int   // whose client's request made a revision
	ended map[writer]bool // Sessions that have
	given map[int64]bool  // leases that a Session was given
	of    map[*Session]writer
	loose map[claim]bool    // given up on a given lease: whose the ticket is, nobody knows
	made  map[claim]bool    // taken up
	going map[claim]int     // under way on a given lease
	begun map[ticketID]bool // tickets that were held
	wrote map[ticketID][]writer
	taken map[string]bool // by which revision each was taken up
	over  []*Session      // that were orphaned, and not closed
}

func newLeft() left {
	return left{
		by: map[int64]int{}, ended: map[writer]bool{}, given: map[int64]bool{}, of: map[*Session]writer{}, loose: map[claim]bool{}, made: map[claim]bool{}, going: map[claim]int{},
		begun: map[ticketID]bool{}, wrote: map[ticketID][]writer{}, taken: map[string]bool{},
	}
}

// writerLocked is who has written a key last.
func (w *world) writerLocked(kv *mvccpb.KeyValue) writer {
	return writer{kv.Lease, w.left.by[kv.ModRevision]}
}

// lateLocked reports whether a request can be what was late of a Session that had the ticket and has ended.
func (w *world) lateLocked(id ticketID, client int) bool {
	return slices.ContainsFunc(w.left.wrote[id], func(who writer) bool { return who.client == client && w.left.ended[who] })
}

// hasEnded notes that the Session of a slot, which had this client, is over.
func (w *world) hasEnded(s *Session, c *attackClient) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left.ended[writer{int64(s.Lease()), c.id}] = true
}

// freeLocked reports whether a ticket as it was written at a revision is there to be taken up.
func (w *world) freeLocked(id ticketID, lease, mod int64) bool {
	by := writer{lease, w.left.by[mod]}
	return w.left.ended[by] || w.left.loose[claim{id, by}] && w.left.going[claim{id, by}] == 0
}

// orphan ends a Session and leaves what it holds. What waits is gone then, what is held is there, and no function runs.
func (w *world) orphan(sl *slot, s *Session, client *attackClient) {
	l, over := s.leases.current(), s.over() != nil
	w.mu.Lock()
	w.closing[s] = true
	var held []*belief
	for b := range w.beliefs {
		if hold, ok := b.ctx.(*lease.Hold); ok && hold.Lease() == l.Lease && b.set == nil {
			held = append(held, b)
		}
	}
	w.left.over = append(w.left.over, s)
	w.mu.Unlock()
	held = slices.DeleteFunc(held, func(b *belief) bool { return b.ctx.Err() != nil })
	began, left := time.Now(), l.Left()
	c := w.calling(context.Background(), sl.id, "Orphan").by(began.Add(w.closes(s)), "the bound of Orphan")
	err := s.Orphan()
	w.returned(c, err)
	w.hasEnded(s, client)
	waited := w.ofWriter(writer{int64(l.ID), client.id})
	w.mu.Lock()
	for _, b := range held {
		removed := w.fateLocked(b.id()).removed
		_, works := w.beliefs[b]
		switch {
		case !works:
		case b.fn && err == nil && time.Since(began) < left:
			w.violateLocked("a function runs after Orphan", "%v", b)
		case !b.fn && removed != nil && removed.Client == client.id:
			w.violateLocked("an orphan was deleted", "%v, by %s at revision %d", b, removed.Cause, removed.Rev)
		}
	}
	w.mu.Unlock()
	// Of one that was over, or had lost its lease, nothing is asked; and calls may return long after they were granted.
	if err != nil || over || !errors.Is(context.Cause(l.Context()), ErrNoLease) || w.may(traitSlowAdopt) {
		return
	}
	time.Sleep(time.Millisecond) // for the calls that return with a hold
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range waited {
		if f := w.fateLocked(id); !w.left.begun[id] && f.removed == nil && w.stays[id] == nil {
			w.violateLocked("what waited was orphaned", "%s@%d of s%d", id.key, id.rev, sl.id)
		}
	}
}

// closes is how long the end of a Session may take: for its functions, whose holds may be over already, and for its requests.
func (w *world) closes(s *Session) time.Duration {
	l := s.leases.current()
	return l.Left() + s.opts.margin + l.Margin() + closeLimit
}

// ofWriter lists the tickets in the store that one Session has written.
func (w *world) ofWriter(who writer) (all []ticketID) {
	kvs := w.etcd.Keys("")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kv := range kvs {
		key := string(kv.Key)
		if who == w.writerLocked(kv) && !strings.Contains(key, "slot/") {
			all = append(all, ticketID{key, kv.CreateRevision})
		}
	}
	return all
}

// give is the lease that the next Session of a slot is given, if any: the one that is left, unless its revocation may be under
// way, or one that somebody grants.
func (w *world) give(r *rand.Rand, s *Session, client *attackClient) clientv3.LeaseID {
	switch r.IntN(4) {
	case 0:
		ctx, cancel := context.WithTimeout(context.Background(), w.ttl)
		defer cancel()
		if resp, err := client.client.Grant(ctx, int64(w.ttl/time.Second)); err == nil {
			return resp.ID
		}
	case 1, 2:
		if why := s.over(); errors.Is(why, ErrNoLease) || errors.Is(why, ErrClientClosed) {
			return s.Lease()
		}
	}
	return clientv3.NoLease
}

// taking is a Resume under way.
type taking struct {
	claim
	mod   int64
	given bool // on a lease that the Session was given
}

// take notes that a ticket is to be taken up; nil if it is not free.
func (w *world) take(s *Session, key string, rev, mod, lease int64) *taking {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &taking{claim: claim{ticketID{key, rev}, w.left.of[s]}, mod: mod, given: s.leases.given}
	if !w.freeLocked(t.id, lease, mod) {
		return nil
	}
	w.left.going[t.claim]++
	return t
}

// taken is the end of it.
func (w *world) taken(t *taking, token int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left.going[t.claim]--
	if err != nil {
		w.left.loose[t.claim] = t.given && !w.left.made[t.claim]
		return
	}
	w.left.made[t.claim] = true
	delete(w.left.loose, t.claim)
	if token != t.id.rev {
		w.violateLocked("taken up as another", "%s@%d: token %d", t.id.key, t.id.rev, token)
	}
	by := fmt.Sprintf("%s at %d", t.id.key, t.mod)
	if w.left.taken[by] {
		w.violateLocked("taken up twice", "%s", by)
	}
	w.left.taken[by] = true
	delete(w.stays, t.id) // if it was to stay, nothing came of that
}

// resumeOnce takes up what a Session has left, works and releases it.
func (w *world) resumeOnce(r *rand.Rand) {
	sl, m, e := w.pick(r)
	if r.IntN(3) == 0 {
		w.resumeLead(r, sl, e)
		return
	}
	ctx, cancel := w.patience(r, 1)
	defer cancel()
	queued, err := m.Waiters(ctx)
	if first, ferr := m.Holder(ctx); ferr == nil {
		queued = append(queued, first)
	}
	if err != nil || len(queued) == 0 {
		return
	}
	w.hesitate(r)
	w.resumeAs(ctx, r, sl, m, queued[r.IntN(len(queued))])
}

// resumeAs takes up this one if it is free.
func (w *world) resumeAs(ctx context.Context, r *rand.Rand, sl *slot, m *Mutex, of Contender) {
	if of.Class != "" || !w.use(m, 1) {
		return
	}
	defer w.use(m, -1)
	t := w.take(m.s, of.Key, of.Token, of.Modified, int64(of.Lease))
	if t == nil {
		return
	}
	c := w.calling(ctx, sl.id, "Resume %s %p %s@%d at %d", m.name, m, of.Key, of.Token, of.Modified)
	err := m.Resume(ctx, of.Key, of.Modified)
	w.returned(c, err)
	w.taken(t, of.Token, err)
	if err != nil {
		return
	}
	b := w.believes(&belief{slot: sl, name: m.name, ctx: m.Context(), token: m.Token(), key: m.Key(), mutex: true, resumed: true})
	w.work(r, b, m.Verify, one(m.IsOwner))
	rctx, rcancel := w.patience(r, 5)
	defer rcancel()
	w.unlock(rctx, r, sl, m, b)
}

// rush has several Sessions take up what one has left, all at once and all as it was then.
func (w *world) rush(r *rand.Rand, who writer) {
	var all sync.WaitGroup
	for _, kv := range w.etcd.Keys("") {
		key := string(kv.Key)
		id := ticketID{key, kv.CreateRevision}
		w.mu.Lock()
		theirs := w.writerLocked(kv) == who
		var own []*Mutex
		var of []*slot
		for _, sl := range w.slots {
			for _, m := range sl.locks {
				if theirs && id.class() == queue.Exclusive && key == m.name+"/"+id.leaf() && r.IntN(2) == 0 {
					own, of = append(own, m), append(of, sl)
				}
			}
		}
		w.mu.Unlock()
		for i, m := range own {
			r := rand.New(rand.NewPCG(r.Uint64(), 10))
			all.Go(func() {
				ctx, cancel := w.patience(r, 0)
				defer cancel()
				w.resumeAs(ctx, r, of[i], m, Contender{Key: key, Token: id.rev, Lease: clientv3.LeaseID(kv.Lease), Modified: kv.ModRevision})
			})
		}
	}
	all.Wait()
}

// hesitate lets somebody else be first.
func (w *world) hesitate(r *rand.Rand) {
	if r.IntN(2) == 0 {
		w.pause(some(r, w.ttl/2))
	}
}

func (w *world) resumeLead(r *rand.Rand, sl *slot, e *Election) {
	ctx, cancel := w.patience(r, 1)
	defer cancel()
	if !w.campaigns(e) {
		return
	}
	defer w.campaigned(e)
	of, err := e.Leader(ctx)
	if err != nil {
		return
	}
	w.hesitate(r)
	t := w.take(e.s, of.Key, of.Token, of.Modified, int64(of.Lease))
	if t == nil {
		return
	}
	c := w.calling(ctx, sl.id, "Resume %s %p %s@%d at %d", e.name, e, of.Key, of.Token, of.Modified)
	err = e.Resume(ctx, of.Key, of.Modified)
	w.returned(c, err)
	w.taken(t, of.Token, err)
	if err != nil {
		return
	}
	b := w.believes(&belief{slot: sl, name: e.name, ctx: e.Context(), token: e.Token(), key: e.Key(), resumed: true})
	w.lead(r, sl, e, b)
	w.resign(r, sl, e, b)
}

// tidyUp deletes, as an operator would, what nobody owns and what a lease that is renewed keeps: else it is in the way for ever.
func (w *world) tidyUp() {
	for _, kv := range w.etcd.Keys("") {
		id := ticketID{string(kv.Key), kv.CreateRevision}
		w.mu.Lock()
		due := w.left.given[kv.Lease] && w.freeLocked(id, kv.Lease, kv.ModRevision)
		w.mu.Unlock()
		if due {
			w.logf("operator: delete %s, which is nobody's", id.key)
			w.etcd.Delete(id.key)
		}
	}
}

// tidy does so until it is stopped.
func (w *world) tidy() (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			w.tidyUp()
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return func() { close(done) }
}
