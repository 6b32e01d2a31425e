package etcdlock

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// The attacker: random schedules on the etcd in memory, in fake time, each made from one seed. Sessions lock, elect,
// linger, read, take permits and several names at once, leave places taken, take up what others have left, are given leases,
// orphaned and closed, while requests are lost, late, repeated and refused, watches go silent, members freeze, operators
// delete, and the machine is suspended. What the library tells is compared with the store's history, which knows which
// ticket was lowest when; at the end everything is healed, and nothing may hang or be left.
//
// The files: attack_world_test.go has the cast, attack_calls_test.go, attack_family_test.go and attack_election_test.go what
// it does, attack_given_test.go what is left and taken up, attack_faults_test.go and attack_operator_test.go what is done to it, attack_returns_test.go, attack_check_test.go,
// attack_notice_test.go, attack_release_test.go, attack_shared_test.go and attack_hooks_test.go the judgement, and
// attack_end_test.go the healing.
//
// A seed decides everything but the order of goroutines that can run at one moment of fake time: that is the Go
// scheduler's, so a failure may take some runs of its seed to show again.
var (
	attackSeed = flag.Uint64("attack.seed", 0, "TestAttack: run this one schedule, and print its log if it fails")
	attackFor  = flag.Duration("attack.for", 0, "TestAttack: run fresh schedules for that long")
	attackRuns = flag.Int("attack.runs", 0, "TestAttack: how often to run the one schedule of -attack.seed (once); without it, how many schedules from 1 on (200)")
	attackSkip = flag.String("attack.skip", strings.Join(attackKnown, ","), "TestAttack: kinds of violations to count and go on, with commas")
	attackOff  = flag.Uint64("attack.off", 0, "TestAttack: traits that no schedule has, as the sum of their bits")
	attackLog  = flag.Bool("attack.log", false, "TestAttack: print the log of a schedule that did not fail, too")
)

// attackKnown are the violations that are known and cannot be mended: run with -attack.skip= to see them.
var attackKnown = []string{
	// The etcd client repeats a deletion at once, and the second copy finds nothing. Only a late answer tells that it may
	// have: see ErrLost. So with a Proclaim of the value that is in force, on a given lease: see Election.Proclaim.
	"lost by a repetition",
	// A release that was not confirmed may arrive when its Session has ended and another has taken the ticket up. It names
	// the create revision, which is the same: see Mutex.Resume.
	"a late release met what was taken up",
	// And when it never arrives: its Session has handed on in memory, to a hold with a greater token. See there too.
	"a release that did not arrive was taken up",
}

// violation is a promise that was seen broken.
type violation struct{ kind, text string }

func TestAttack(t *testing.T) {
	first, runs, until := uint64(1), cmp.Or(*attackRuns, 200), time.Time{} // an ordinary run takes the same ones each time
	switch {
	case *attackSeed != 0:
		first, runs = *attackSeed, cmp.Or(*attackRuns, 1)
	case *attackFor > 0:
		first, runs, until = rand.Uint64N(1<<40), 1<<62, time.Now().Add(*attackFor)
	}
	counts, began := map[string]int{}, time.Now()
	for i := range runs {
		if !until.IsZero() && time.Now().After(until) {
			t.Logf("%d schedules from %d on", i, first)
			break
		}
		seed := first + uint64(i)
		if *attackSeed != 0 {
			seed = first
		}
		w := attack(t, seed)
		seen := map[string]bool{}
		for _, v := range w.violations {
			if seen[v.kind] {
				continue
			}
			seen[v.kind] = true
			if counts[v.kind]++; counts[v.kind] == 1 {
				t.Logf("first %q: schedule %d, after %v", v.kind, i+1, time.Since(began).Round(time.Millisecond))
			}
		}
		if bad := w.unknown(); len(bad) > 0 {
			t.Fatalf("schedule of seed %d, run again with -attack.seed %d:\n%s%s", seed, seed, w.story(), strings.Join(bad, "\n"))
		} else if *attackLog {
			t.Log(w.story())
		}
	}
	if len(counts) > 0 {
		t.Logf("schedules with known violations in %v: %v", time.Since(began).Round(time.Millisecond), counts)
	}
}

// attack runs one schedule.
func attack(t *testing.T, seed uint64) (w *world) {
	t.Helper()
	w = newWorld(seed)
	defer func() {
		if err := recover(); err != nil { // goroutines that are left, for one
			w.violate("panic", "%v\n%s", err, stacks())
		}
	}()
	// In real time: a schedule whose time does not go on, because something happens all the time, would never end.
	defer time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("the schedule of seed %d does not end", seed)) }).Stop()
	bubble(t, func() time.Duration { return time.Duration(w.slept.Load()) }, func(*testing.T) { w.run() })
	return w
}

// unknown lists the violations that are not to be skipped. A kind with an exclamation mark after it takes all of its
// schedule with it: what follows from it is not told apart.
func (w *world) unknown() (bad []string) {
	skip := strings.Split(*attackSkip, ",")
	for _, v := range w.violations {
		switch {
		case slices.Contains(skip, v.kind+"!"):
			return nil
		case !slices.Contains(skip, v.kind) && !slices.Contains(skip, "all"):
			bad = append(bad, fmt.Sprintf("VIOLATION %s: %s", v.kind, v.text))
		}
	}
	return bad
}

func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
