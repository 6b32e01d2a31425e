package etcdlock

import "time"

// instant is a point on the clock that every deadline is held against: monotonic, and counting the time that the
// machine was suspended, since etcd's leases go on meanwhile. Only differences mean anything.
type instant time.Duration

// clockStart carries a monotonic reading, so that a step of the wall clock moves nothing.
var clockStart = time.Now()

// now is some moment between its call and its return, wherever between its readings the process is stopped: not later,
// since a request that is sent next must not seem to have been sent later than it was; not earlier, since a hold must
// not seem to last because somebody asked slowly. On Linux the sum is the boot clock's reading, the last of the three,
// less the time between the two readings of Go's clock before it.
func now() instant { return instant(time.Since(clockStart) + suspended()) }

func (i instant) add(d time.Duration) instant { return i + instant(d) }

func (i instant) sub(j instant) time.Duration { return time.Duration(i - j) }

// suspended is how long the machine has slept since clockStart. A variable, so that tests can send it to sleep.
var suspended = sleptSinceStart
