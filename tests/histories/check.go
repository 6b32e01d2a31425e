package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
)

// This file has the checks beside the model: against etcd's own record of what happened.

// finding is one thing that must not be.
type finding struct{ check, detail string }

func (f finding) String() string { return f.check + ": " + f.detail }

// check runs all checks; nothing found is a clean run.
func (h *history) check(ttl time.Duration) []finding {
	h.settle()
	var found []finding
	for _, name := range sorted(h.holds) {
		if v := checkLock(h.lock(name)); v.result != "Ok" {
			found = append(found, finding{"porcupine, " + name, fmt.Sprintf("%s: %s", v.result, v.detail)})
		}
		found = append(found, h.checkTickets(name, ttl)...)
		found = append(found, h.checkTenures(name, ttl)...)
		found = append(found, h.checkGuarded(name)...)
		found = append(found, h.checkStays(name)...)
	}
	for _, worker := range sorted(h.observed) {
		found = append(found, h.checkObserver(worker, h.observed[worker])...)
	}
	return append(found, h.checkReturns()...)
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// life is that of a ticket; seen and born are when a watch told of its two ends.
type life struct {
	created, deleted, born, seen int64
	class                        string // with whom it shares, by its key
}

// outlivedBy returns a ticket ahead that outlived l and that l could not hold beside, nil if there is none: until its end
// all that were ahead of it shared with it, and fitted.
func (l *life) outlivedBy(ahead []*life) *life {
	weight, limit := share(l.class)
	for _, o := range ahead {
		if o.deleted <= l.deleted {
			continue
		}
		more, other := share(o.class)
		if weight += more; other != limit || limit > 0 && weight > limit {
			return o
		}
	}
	return nil
}

var permitKey = regexp.MustCompile(`^of-([1-9][0-9]*)-(?:w([1-9][0-9]*)-)?`)

// classOf is the class of a ticket, as Contender.Class has it. There are no others here than those of our own making.
func classOf(leaf string) string {
	if strings.HasPrefix(leaf, "read-") {
		return "read"
	}
	if m := permitKey.FindStringSubmatch(leaf); m != nil {
		return cmp.Or(m[2], "1") + " of " + m[1]
	}
	return ""
}

// lives lists the tickets that etcd had, by create revision.
func (h *history) lives(name string) map[int64]*life {
	lives := make(map[int64]*life)
	open := make(map[string]*life)
	for _, c := range h.log.changes(name) {
		switch {
		case c.Create == c.Rev:
			l := &life{created: c.Rev, deleted: never, born: c.Seen, class: classOf(strings.TrimPrefix(c.Key, name+"/"))}
			lives[c.Rev], open[c.Key] = l, l
		case c.Create == 0 && open[c.Key] != nil:
			open[c.Key].deleted, open[c.Key].seen = c.Rev, c.Seen
			delete(open, c.Key)
		}
	}
	return lives
}

// checkTickets holds every acquisition against the tickets that etcd had: its token is a create revision, and no ticket
// ahead of it that excludes it outlived it. A belief ends a TTL after the ticket at the latest, whoever removed it.
func (h *history) checkTickets(name string, ttl time.Duration) []finding {
	lives := h.lives(name)
	byToken := make([]*life, 0, len(lives))
	for _, l := range lives {
		byToken = append(byToken, l)
	}
	sort.Slice(byToken, func(i, j int) bool { return byToken[i].created < byToken[j].created })
	longer := make(map[int64]*life) // what a ticket could not hold beside
	var ahead []*life
	for _, l := range byToken {
		ahead = slices.DeleteFunc(ahead, func(o *life) bool { return o.deleted < l.created })
		if o := l.outlivedBy(ahead); o != nil {
			longer[l.created] = o
		}
		ahead = append(ahead, l)
	}
	var found []finding
	for _, x := range h.holds[name] {
		l := lives[x.token]
		switch {
		case l == nil:
			found = append(found, finding{"tickets, " + name,
				fmt.Sprintf("%s got token %d, which is no ticket's create revision", x.worker, x.token)})
		// The same revision is in order: one transaction may carry a release and those before it, or a lease its all.
		// concurrency's Campaign returns nil although its own ticket has gone meanwhile; that is its belief, not ours. A
		// waiter of ours whose ticket an operator or an old leader removed may take the deletion of the one ahead for
		// its turn, for as long as the check takes that follows the grant: it is excused as a holder would be.
		case !x.foreign && x.excused == "" && longer[x.token] != nil:
			found = append(found, finding{"tickets, " + name, fmt.Sprintf(
				"%s held token %d, deleted at %d, behind a ticket that was there until %d", x.worker, x.token, l.deleted, longer[x.token].deleted)})
		case !x.foreign && l.seen != 0 && x.alive > l.seen+int64(ttl):
			found = append(found, finding{"tickets, " + name, fmt.Sprintf(
				"%s believed in token %d for %.3f s after its ticket had gone", x.worker, x.token, float64(x.alive-l.seen)/1e9)})
		}
	}
	return found
}

// checkGuarded looks at what was written under guards: no token after a greater one of a hold that excludes it. All holds of
// a name that share do so with any number.
func (h *history) checkGuarded(name string) []finding {
	var found []finding
	var newest, alone int64 // of all, and of those that share with nobody
	for _, c := range h.log.of(guardedFor + name) {
		token, shares := number(c.Value), !strings.HasSuffix(c.Value, " ")
		before := newest
		if shares {
			before = alone
		} else {
			alone = max(alone, token)
		}
		newest = max(newest, token)
		if token < before {
			found = append(found, finding{"guarded writes, " + name, fmt.Sprintf(
				"token %s wrote at revision %d, after token %d had", c.Value, c.Rev, before)})
		}
	}
	return found
}

func number(s string) (n int64) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

// checkObserver holds what an observer was shown against the one order of states that etcd had: it may miss states, but
// not see one that never was, nor go back.
func (h *history) checkObserver(worker string, shown []record) []finding {
	type state struct {
		token int64
		value string
	}
	var states []state
	tickets := make(map[string]change)
	log := h.log.changes(election)
	states = append(states, state{})
	for i, c := range log {
		if c.Create == 0 {
			delete(tickets, c.Key)
		} else {
			tickets[c.Key] = c
		}
		if i+1 < len(log) && log[i+1].Rev == c.Rev {
			continue
		}
		var s state
		for _, t := range tickets {
			if s.token == 0 || t.Create < s.token {
				s = state{t.Create, t.Value}
			}
		}
		if s != states[len(states)-1] {
			states = append(states, s)
		}
	}
	at, newest := 0, int64(0)
	for n, r := range shown {
		if r.Outcome != "" {
			continue // why it ended
		}
		if r.Token != 0 && r.Token < newest {
			return []finding{{"observers", fmt.Sprintf("%s was shown token %d after %d", worker, r.Token, newest)}}
		}
		newest = max(newest, r.Token)
		s := state{r.Token, r.Value}
		from := at
		for at < len(states) && states[at] != s {
			at++
		}
		if at == len(states) {
			return []finding{{"observers", fmt.Sprintf("%s was shown (%d, %q) as its state %d, which etcd did not have after its state %d of %d",
				worker, r.Token, r.Value, n, from, len(states))}}
		}
	}
	return nil
}

// summary counts what happened, for people to judge whether much did.
func (h *history) summary() string {
	var b strings.Builder
	for _, name := range sorted(h.holds) {
		var ours, foreign, lost, operator, leader, again, late, stayed int
		for _, x := range h.holds[name] {
			switch {
			case x.foreign:
				foreign++
				continue
			case x.outcome == "lost":
				lost++
			}
			ours++
			if x.again {
				again++
			}
			if x.late {
				late++
			}
			if h.stayed(x) {
				stayed++
			}
			switch x.excused {
			case "operator":
				operator++
			case "old leader":
				leader++
			}
		}
		fmt.Fprintf(&b, "%-16s %6d holds of ours, %6d of concurrency's; %d lost, %d removed by an operator, %d within 3 s of an old leader's waking",
			name, ours, foreign, lost, operator, leader)
		if again > 0 {
			fmt.Fprintf(&b, "; %d took up an idle ticket, %d of them after others had removed it", again, late)
		}
		if stayed > 0 {
			fmt.Fprintf(&b, "; %d stayed", stayed)
		}
		b.WriteString("\n")
	}
	calls, latest := make(map[string]int), int64(0)
	for _, r := range h.others {
		o := r.Outcome
		if o == "" {
			o = "ok"
		}
		if text, ok := strings.CutPrefix(o, "error: "); ok && len(text) > 110 {
			o = "error: …" + text[len(text)-100:]
		}
		calls[r.What+": "+o]++
		if r.Due != 0 && !r.Foreign && !h.stopped(r) {
			latest = max(latest, r.Return-r.Due)
		}
	}
	for _, what := range sorted(calls) {
		fmt.Fprintf(&b, "%7d  %s\n", calls[what], what)
	}
	states := 0
	for _, shown := range h.observed {
		states += len(shown)
	}
	fmt.Fprintf(&b, "%d observers were shown %d states; the latest return came %.0f ms after its context's end\n",
		len(h.observed), states, float64(latest)/1e6)
	return b.String()
}
