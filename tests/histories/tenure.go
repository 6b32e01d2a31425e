package main

import (
	"fmt"
	"time"
)

// This file has what is different for Sessions that linger: the holds of one tenure are on one ticket.

// unasked says that the ticket may have gone before its release, which was in memory: it let the ticket idle, and so
// proves nothing.
func (x *hold) unasked(gone *change) bool {
	const late = int64(50e6) // of the watch that told
	return x.tenant != "" && x.until == 0 && gone.Seen <= x.endRet+late
}

// markAgain finds the holds that came after others of their ticket.
func markAgain(holds []*hold) {
	first := make(map[int64]*hold)
	for _, x := range holds {
		if f := first[x.token]; f == nil || x.call < f.call {
			first[x.token] = x
		}
	}
	for _, x := range holds {
		x.again = first[x.token] != x
	}
}

// lock is the history of one name as the model sees it. A hold on a ticket that others had removed before it began, of
// which its Session had no news, is no hold: they ended the tenure.
func (h *history) lock(name string) []*hold {
	var holds []*hold
	for _, x := range h.holds[name] {
		if !x.late {
			holds = append(holds, x)
		}
	}
	return holds
}

// checkTenures holds every hold that took up an idle ticket against that ticket, and against those who queued behind it.
func (h *history) checkTenures(name string, ttl time.Duration) []finding {
	var found []finding
	lives := h.lives(name)
	for _, x := range h.holds[name] {
		own := lives[x.token]
		if !x.again || own == nil {
			continue
		}
		// What idled is gone for its Session before it is gone from etcd, unless others removed it.
		if x.excused == "" && own.seen != 0 && x.call > own.seen {
			found = append(found, finding{"tenures, " + name, fmt.Sprintf(
				"%s took up token %d %.3f s after its ticket had gone", x.worker, x.token, float64(x.call-own.seen)/1e9)})
		}
		// A Session that hears nothing for a TTL has lost its lease, and one that hears looks who queues more often.
		for _, l := range lives {
			if l.created > x.token && l.born+int64(ttl) < x.call && (l.seen == 0 || l.seen > x.call) {
				found = append(found, finding{"tenures, " + name, fmt.Sprintf(
					"%s took up token %d although %d had queued for %.3f s", x.worker, x.token, l.created, float64(x.call-l.born)/1e9)})
				break
			}
		}
	}
	return found
}
