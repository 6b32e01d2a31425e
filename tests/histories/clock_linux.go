package main

import "golang.org/x/sys/unix"

// clock is CLOCK_MONOTONIC, which all processes of a machine share: what one recorded can be compared with what
// another did.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("bug: no monotonic clock: " + err.Error())
	}
	return ts.Nano()
}
