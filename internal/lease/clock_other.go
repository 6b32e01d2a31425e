//go:build !linux

package lease

import "time"

// sleptSinceStart is not known here: a machine that was suspended may believe in a hold for as long as it slept.
// The fencing token is what is left.
func sleptSinceStart() time.Duration { return 0 }
