package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file notes calls of the library, and whether they return in time.

// call is one call of the library under way.
type call struct {
	who   int
	what  string
	began time.Time
	ends  time.Time // when it must have returned, if not zero
	why   string    // what ends it then

	names []string // of a call that takes them only if they are free: what it may say is that they are not
	leaf  string   // the leaf that it would put
	busy  bool     // whether they were not at any time
}

// calling notes a call that has to return with its context.
func (w *world) calling(ctx context.Context, who int, format string, args ...any) *call {
	c := &call{who: who, what: fmt.Sprintf(format, args...), began: time.Now()}
	if end, ok := ctx.Deadline(); ok {
		c.ends, c.why = end, "its context"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[c] = struct{}{}
	w.logLocked("s%d %s ...", who, c.what)
	return c
}

// by makes the call return by then at the latest.
func (c *call) by(end time.Time, why string) *call {
	if c.ends.IsZero() || end.Before(c.ends) {
		c.ends, c.why = end, why
	}
	return c
}

// byDeadline makes the call return by the deadline of its hold, as it is when the call begins. What that is, is known when all
// that happens at this moment has: a renewal may be answered between a look from here and the call's own. That is no rare
// chance, for the read of a renewal is what shows a waiting ticket that its turn has come.
func (w *world) byDeadline(c *call, l *lease.Lease) *call {
	const why = "the deadline of its hold"
	if l == nil {
		return c
	}
	others, began := *c, time.Now()
	left := l.Left()
	time.AfterFunc(1, func() { // fake time goes on when nobody can run any more
		w.mu.Lock()
		defer w.mu.Unlock()
		again := others
		again.by(began.Add(max(left, l.Left())), why)
		c.ends, c.why = again.ends, again.why
	})
	return c.by(began.Add(left), why)
}

func (w *world) returned(c *call, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, c)
	w.logLocked("s%d %s: %v", c.who, c.what, err)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		w.leftEarly[c.who] = time.Now()
	}
	ends := c.ends
	if c.began.After(ends) { // over before it began
		ends = c.began
	}
	if late := time.Since(ends); !c.ends.IsZero() && late > 0 {
		kind := "outlives its context"
		if c.why != "its context" {
			kind = "outlives " + c.why
		}
		w.violateLocked(kind, "s%d %s, begun at %v, returned %v after %s", c.who, c.what, c.began.Sub(w.begin), late, c.why)
	}
}

// patience picks a context.
func (w *world) patience(r *rand.Rand, endless int) (context.Context, context.CancelFunc) {
	d := 4 * w.ttl
	switch n := r.IntN(10); {
	case n < endless:
		return context.WithCancel(context.Background())
	case n < 5:
		d = some(r, w.ttl/10)
	case n < 9:
		d = some(r, 2*w.ttl)
	}
	return context.WithTimeout(context.Background(), d)
}
