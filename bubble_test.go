package etcdlock

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// bubble runs f in fake time, on a machine that has slept as long as slept says. The real clock of suspensions comes back
// only when every goroutine of the bubble has ended: those that f leaves ask it to their end.
//
// Under the race detector it has one processor. Go up to 1.26 at least has one state of the detector for all timers of a
// bubble, and lets every goroutine that looks at a timer's channel run that timer itself: two at once ruin it, and the
// process crashes, here or there (https://go.dev/issue/78156; eight goroutines that each make fifty timers, sleep and
// receive from them are enough). The detector finds the same races on one processor, for it compares what is ordered and
// not what runs at once.
func bubble(t *testing.T, slept func() time.Duration, f func(t *testing.T)) {
	t.Helper()
	before := lease.Suspended
	lease.Suspended = slept
	defer func() { lease.Suspended = before }()
	if raceDetector {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}

// raceDetector tells that the detector runs: see race_test.go.
var raceDetector bool

// awake is a machine that never sleeps.
func awake() time.Duration { return 0 }
