package etcdlock

import "time"

// instant is a point on the clock that every deadline is held against: monotonic, and counting the time that the
// machine was suspended, since etcd's leases go on meanwhile. Only differences mean anything.
type instant time.Duration

// clockStart carries a monotonic reading, so that a step of the wall clock moves nothing.
var clockStart = time.Now()

// now may be any moment between its call and its return, which is enough: a request is sent after now has
// returned, and a hold is judged by a moment that is not later than the answer.
func now() instant { return instant(time.Since(clockStart) + suspended()) }

func (i instant) add(d time.Duration) instant { return i + instant(d) }

func (i instant) sub(j instant) time.Duration { return time.Duration(i - j) }

// suspended is how long the machine has slept since clockStart. A variable, so that tests can send it to sleep.
var suspended = sleptSinceStart
