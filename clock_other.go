//go:build !linux

package etcdlock

import "time"

// sleptSinceBoot is not known here: a machine that was suspended may believe in a hold for as long as it slept.
// The fencing token is what is left.
func sleptSinceBoot() time.Duration { return 0 }
