package etcdlock

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleptSinceBoot is CLOCK_BOOTTIME less CLOCK_MONOTONIC, on which Go's timers run and which stands still in suspend.
// The two are read one after the other; see now for why the order is this one.
func sleptSinceBoot() time.Duration {
	var mono, boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano() - mono.Nano())
}
