//go:build unix

package main

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

// row is what one case showed for one implementation.
type row struct {
	experiment, name, impl string
	trials, violations     int
	figure                 string
	// apart marks a row that counts what etcd itself did: the trials are not
	// violations, only what was made of them can be.
	apart bool
	// ours marks a row of the suite's own leases whose violations are the
	// rule's, and with it the library's.
	ours bool
}

// claimed rows must have no violations.
func (r row) claimed() bool { return r.ours || r.impl != "" && r.impl != (theirs{}).Name() }

func (s *suite) add(r row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.experiment = s.title
	s.rows = append(s.rows, r)
	fmt.Printf("   %-44s %-19s trials %5d  violations %4s  %s\n", r.name, r.impl, r.trials, r.count(), r.figure)
}

func (r row) count() string {
	if r.apart && r.violations == 0 {
		return "–"
	}
	return fmt.Sprint(r.violations)
}

// tally is what a case adds up, from many goroutines.
type tally struct {
	mu                 sync.Mutex
	trials, violations int
	worst              time.Duration
	notes              map[string]int
}

func (t *tally) count(bad bool, d time.Duration, note string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trials++
	t.worst = max(t.worst, d)
	if bad {
		t.violations++
		if t.notes == nil {
			t.notes = map[string]int{}
		}
		t.notes[note]++
	}
}

func (t *tally) figure(what string) string {
	f := fmt.Sprintf("%s at most %s", what, ms(t.worst))
	for _, note := range sorted(t.notes) {
		f += fmt.Sprintf("; %d %s", t.notes[note], note)
	}
	return f
}

// table shows the implementations side by side, one line a case.
func table(impls []impl, rows []row) string {
	var b strings.Builder
	b.WriteString("| experiment | case |")
	for _, i := range impls {
		fmt.Fprintf(&b, " %s: violations | figure |", i.Name())
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|---|", len(impls)) + "\n")
	seen := map[string]bool{}
	var bare strings.Builder
	for _, r := range rows {
		if r.impl == "" {
			fmt.Fprintf(&bare, "| %s, %s | %d | %d | %s |\n", r.experiment, r.name, r.trials, r.violations, r.figure)
			continue
		}
		id := r.experiment + "\x00" + r.name
		if seen[id] {
			continue
		}
		seen[id] = true
		fmt.Fprintf(&b, "| %s | %s |", r.experiment, r.name)
		for _, i := range impls {
			cell := "  |  |"
			for _, o := range rows {
				if o.experiment == r.experiment && o.name == r.name && o.impl == i.Name() {
					cell = fmt.Sprintf(" %s of %d | %s |", o.count(), o.trials, o.figure)
				}
			}
			b.WriteString(cell)
		}
		b.WriteString("\n")
	}
	if bare.Len() > 0 {
		b.WriteString("\n| the suite's own leases | trials | removed before the bound | figure |\n|---|---:|---:|---|\n" + bare.String())
	}
	return b.String()
}

func document(s *suite, took time.Duration) string {
	form := "the full form"
	if s.short {
		form = "the short form"
	}
	var sum strings.Builder
	for _, i := range s.impls {
		trials, violations := 0, 0
		for _, r := range s.rows {
			if r.impl == i.Name() && !r.apart {
				trials += r.trials
				violations += r.violations
			}
		}
		fmt.Fprintf(&sum, "- %s: %d violations in %d trials\n", i.Name(), violations, trials)
	}
	return fmt.Sprintf(`# Under faults

Written by `+"`go run -C tests ./faults %s`"+`: %s, seed %d, %s on %d CPUs, %s/%s. Real
etcd %[8]s server processes, one or three members, on one machine; client/v3/concurrency %[8]s
went through the same experiments. "Lingering" is etcdlock with `+"`WithLinger(%v)`"+`.

%s
%s
%s`, s.args, form, s.seed, took.Round(time.Second), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, repo.EtcdVersion(), lingerTime, sum.String(), table(s.impls, s.rows), legend)
}

const legend = `
## What the rows say

- **Readers, permits.** The same claims for what RLock returns, or the Acquire of a semaphore of two, with Mutexes of the same
  name queued behind it or in its way; out of band, it is the holder in one half of the trials and the first waiter, between
  two Mutexes, in the other.
- **Two names.** The same claims for what LockAll returns for two names, with Mutexes of one of them queued behind it or in its
  way.
- **Lingering.** The same claims, with nothing allowed but what WithLinger documents: a ticket that nobody else wants
  may stay for the linger time longer, and the holds of one tenure share a token. Wherever a trial begins with a held Mutex,
  that hold took up an idle ticket (Lock, Unlock, Lock, and the token is the same), and where it is released, its ticket
  idles under the fault. What is said below about tickets that idle has trials on this side alone.
- **Who knows first.** A trial is one held lock, with another process queued behind it. A violation is a next
  holder that returned from Lock while the old one, asked at that moment, still said that it held (for
  concurrency: the session's Done was open). "Smallest distance" is from the end of the old hold to the next
  holder's return, "ended before the link was cut" counts holds that were given up while etcd could still be reached
  (a safe loss, but a loss), and "given up early" how long etcd kept a ticket at most after its holder had given it up.
  Where etcd removed a ticket before a bound that the suite computes by itself from the requests it sees on the
  wire, the trial counts in a row of its own: no client can know before it happens (a
  violation there is a hold that, with its link up, had not ended TTL/3 and 300 ms later). For etcdlock that bound is
  "read or renewal sent, whichever was first, + TTL" with the rule on terms; for concurrency the more generous "renewal sent + TTL".
  A removal counts from when the suite's own watch told, or when the next holder held, up to 300 ms before that.
  Two of five lingering locks are released and taken up again every few milliseconds, during the fault and after, and
  the other process queues when the fault has come: nothing tells the old holder. It must not take up its ticket once
  the other has returned from Lock. "Taken up again to the end" counts those whose last hold was such a one.
- **Is the rule needed.** Leases kept by the suite itself, no lock involved: a leader is frozen with a renewal in
  flight, and wakes 300 ms before the others reach it; half of the leases are kept without the rule, half with it. A violation is a lease that etcd removed before the bound.
- **Ghosts.** A violation is a ticket of a failed or finished call that stood longer than one renewal interval
  (TTL/3, and 300 ms for measuring) after etcd could be reached, or after it arrived; or a hold that a late Unlock
  released. A lingering ticket may stay for the linger time on top where nobody queues behind it, and only there.
- **Return in time.** A violation is a call that returned more than 100 ms after its context ended; with
  context.Background() and etcd gone, later than the documented bound.
- **Healing.** A trial is a session with a waiter and an observer. Afterwards a new Lock on the same session,
  the waiter and the observer must each go on within the time given; each that does not is a violation. A
  lingering session's new lock must linger, too, and go to another session although its own takes it up all the time.
- **Out-of-band.** A violation is a hold that did not end within one renewal interval (and 300 ms), a waiter that
  did not get its turn, or two holders after the loss was noticed. Where a ticket that idles is removed, it is a hold
  on that ticket, by a Lock 300 ms later; where another queues behind one, a wait of more than 300 ms.
- **Leaks and load.** Goroutines, watchers, leases and keys before and after; each that grew is a violation. They have
  a renewal interval to come down again, and the linger time where locks linger.
`
