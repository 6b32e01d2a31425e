package main

import "math"

// never is the end of what did not end while the records went on.
const never = math.MaxInt64

// hold is one acquisition with what followed, put together from the records.
type hold struct {
	name, key, worker string
	tenant            string // the Session, if it lingers
	class             string // with whom it shares, as Contender.Class has it
	token             int64
	again             bool // it took up the ticket of an earlier hold
	late              bool // and did so after that had been removed by others
	foreign           bool
	call, ret         int64 // of the acquisition
	alive             int64 // the last moment at which the holder is known to have been told that it holds
	proofs            [][2]int64
	endCall, endRet   int64 // the hold ended somewhere in between
	outcome           string
	released          bool // the end was the holder's own, and in time
	rev               int64
	until             int64  // its lock was to stay taken until then
	wrote             bool   // and somebody wrote under its guard all the same
	excused           string // why etcd, or an operator, may have ended it early
}

// removal is an operator's: tickets, or a lease, taken away on purpose. Nobody can hold beyond that, and a holder
// cannot know at once.
type removal struct {
	Keys  []string
	Lease int64
	At    int64 // when it was sent
}

// history is what a run leaves.
type history struct {
	holds    map[string][]*hold // by name
	byID     map[holdID]*hold
	observed map[string][]record // by worker
	others   []record
	removals []removal
	thaws    []int64 // when members went on that had led when they were frozen
	stops    [][2]int64
	log      *eventLog
}

type holdID struct {
	name, worker string
	token        int64
}

func newHistory(log *eventLog) *history {
	return &history{
		holds: make(map[string][]*hold), byID: make(map[holdID]*hold), observed: make(map[string][]record), log: log}
}

// add takes in a record. Those of one worker come in order.
func (h *history) add(r record) {
	id := holdID{r.Name, r.Worker, r.Token}
	x := h.byID[id]
	switch {
	case r.Kind == isObserve:
		h.observed[r.Worker] = append(h.observed[r.Worker], r)
	case r.Kind == isAcquire && r.Outcome == "":
		x = &hold{name: r.Name, key: r.Key, worker: r.Worker, tenant: r.Tenant, class: r.Class, token: r.Token, foreign: r.Foreign,
			call: r.Call, ret: r.Return, alive: r.Call, endRet: never}
		h.byID[id] = x
		h.holds[r.Name] = append(h.holds[r.Name], x)
	case r.Kind == isAlive && x != nil:
		x.alive = max(x.alive, r.Call)
	case r.Kind == isProof && x != nil && r.Outcome == "":
		x.proofs = append(x.proofs, [2]int64{r.Call, r.Return})
	case r.Kind == isEnd && x != nil:
		x.endCall, x.endRet, x.outcome, x.rev = r.Call, r.Return, r.Outcome, r.Rev
		x.released = r.Outcome == ""
		if r.Stay > 0 {
			x.until = r.Call + r.Stay
		}
	case r.Kind == isGuarded && x != nil && r.Outcome == "":
		x.wrote = x.wrote || x.until > 0
	}
	if r.Kind != isAlive && r.Kind != isObserve {
		h.others = append(h.others, r)
	}
}

// settle works out when each hold can have ended at the earliest. Everything here errs to the earlier side, so that
// whatever the checker then objects to did happen.
func (h *history) settle() {
	// An old leader that goes on may revoke leases that were renewed all along; no client can prevent that.
	const wake = int64(3e9)
	for _, holds := range h.holds {
		markAgain(holds)
		for _, x := range holds {
			if x.foreign {
				h.settleForeign(x)
				continue
			}
			from := x.alive
			if x.released {
				from = max(from, x.endCall)
			}
			if h.stayed(x) { // nobody else has the lock before
				from = max(from, x.until)
			}
			gone := h.goneAt(x)
			for _, r := range h.removals {
				if gone != nil && r.At <= gone.Seen && h.removes(r, x) {
					from, x.excused = min(from, max(x.call, r.At)), "operator"
				}
			}
			for _, thaw := range h.thaws {
				if gone != nil && (!x.released || x.unasked(gone)) && thaw <= gone.Seen && gone.Seen <= thaw+wake && x.excused == "" {
					from, x.excused = min(from, max(x.call, thaw)), "old leader"
				}
			}
			// The Session may not know yet; how long that may be is for checkTickets. A proof would be asked of etcd.
			x.late = x.again && x.excused != "" && x.call > gone.Seen && len(x.proofs) == 0
			x.endCall = from
			x.endRet = max(x.endRet, from)
		}
	}
}

// settleForeign trusts etcd's word alone: the hold lasted until the Unlock that deleted the ticket, or, if none is
// known to have, nobody knows for how long.
func (h *history) settleForeign(x *hold) {
	gone := h.goneAt(x)
	if x.rev != 0 && gone != nil && gone.Rev == x.rev {
		return
	}
	x.endCall, x.endRet = x.call, never
}

// goneAt is the deletion of the hold's ticket, nil if there is none.
func (h *history) goneAt(x *hold) *change {
	for _, c := range h.log.of(x.key) {
		if c.Create == 0 && c.Rev > x.token {
			return &c
		}
	}
	return nil
}

func (h *history) removes(r removal, x *hold) bool {
	for _, key := range r.Keys {
		if key == x.key {
			return true
		}
	}
	if r.Lease == 0 {
		return false
	}
	for _, c := range h.log.of(x.key) {
		if c.Create == x.token && c.Lease == r.Lease {
			return true
		}
	}
	return false
}
