package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootStart is CLOCK_BOOTTIME at about clockStart, 0 if the kernel does not have it.
var bootStart = bootTime()

// sleptSinceStart is how much farther CLOCK_BOOTTIME has gone than Go's monotonic clock, which stands still in suspend.
// The order of the readings matters, see Now.
func sleptSinceStart() time.Duration {
	if bootStart == 0 {
		return 0
	}
	mono := time.Since(clockStart)
	return bootTime() - bootStart - mono
}

func bootTime() time.Duration {
	var boot unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
		return 0
	}
	return time.Duration(boot.Nano())
}
