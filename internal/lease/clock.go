package lease

import "time"

// Instant is a point on the clock that every deadline is held against: monotonic, and counting the time that the
// machine was suspended, since etcd's leases go on meanwhile. Only differences mean anything.
type Instant time.Duration

// clockStart carries a monotonic reading, so that a step of the wall clock moves nothing.
var clockStart = time.Now()

// Now is some moment between its call and its return, wherever between its readings the process is stopped: not later,
// since a request that is sent next must not seem to have been sent later than it was; not earlier, since a hold must
// not seem to last because somebody asked slowly. On Linux the sum is the boot clock's reading, the last of the three,
// less the time between the two readings of Go's clock before it.
func Now() Instant { return Instant(time.Since(clockStart) + Suspended()) }

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Suspended is how long the machine has slept since clockStart. A variable, so that tests can send it to sleep.
var Suspended = sleptSinceStart
