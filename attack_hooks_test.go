package etcdlock

import (
	"context"
	"sync"
	"time"
)

// This file judges what a Session tells its hooks and counts: every wait ends, and every hold ends once, whatever happens.

// heard is what the hooks of one Session were told.
type heard struct {
	slot *slot
	s    *Session
	ttl  time.Duration

	mu           sync.Mutex // guards what follows
	begun, ended int
	lost, failed uint64
	holds        map[ticketID]int // holds that go on; those of one tenure have one ticket
	sets         map[ticketID]int // how often a name of LockAll has ended
	wrong        []any
}

func (h *heard) hooks() Hooks {
	return Hooks{
		WaitBegun: func(context.Context, Wait) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.begun++
		},
		WaitEnded: func(_ context.Context, e WaitEnd) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ended++
			if e.Outcome == OutcomeHeld && e.Kind != "lockall" { // of which each name is a hold of its own
				h.holds[ticketID{e.Key, e.Token}]++
			}
			if (e.Outcome == OutcomeHeld) != (e.Err == nil) || e.Waited < 0 {
				h.wrong = append(h.wrong, e)
			}
		},
		HoldEnded: func(e HoldEnd) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if e.Kind != "lockall" {
				h.holds[ticketID{e.Key, e.Token}]--
			} else {
				h.sets[ticketID{e.Key, e.Token}]++
			}
			if e.Ending == EndingLost {
				h.lost++
			}
			if e.Held < 0 || (e.Ending == EndingLost) != (e.Cause != "") {
				h.wrong = append(h.wrong, e)
			}
		},
		Renewed: func(r Renewal) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if r.Err != nil {
				h.failed++
			}
			if r.Took < 0 || r.Err == nil && r.Left > h.ttl {
				h.wrong = append(h.wrong, r)
			}
		},
	}
}

// judgeHeard is for the end, when every call has returned and all Sessions are closed.
func (w *world) judgeHeard() {
	ended := map[ticketID]int{}
	for _, h := range w.heard {
		h.mu.Lock()
		for id, n := range h.sets {
			ended[id] += n
		}
		h.mu.Unlock()
	}
	for _, b := range w.sets {
		if n := ended[b.id()]; n != 1 {
			w.violate("hooks", "%v, of LockAll, ended %d times", b, n)
		}
	}
	for _, h := range w.heard {
		st := h.s.Stats()
		h.mu.Lock()
		if h.begun != h.ended || len(h.wrong) > 0 || st.EventsDropped > 0 {
			w.violate("hooks", "s%d: %d waits began, %d ended; wrong: %v; %+v", h.slot.id, h.begun, h.ended, h.wrong, st)
		}
		for id, n := range h.holds {
			if n != 0 {
				w.violate("hooks", "s%d: %v began %d times more than it ended", h.slot.id, id, n)
			}
		}
		if st.Held != 0 || st.Waiting != 0 || st.Working != 0 || st.Overruns != 0 || st.Lost != h.lost || st.RenewalFailures != h.failed {
			w.violate("stats", "s%d: %+v, %d lost", h.slot.id, st, h.lost)
		}
		h.mu.Unlock()
	}
}
