//go:build race

package etcdlock

func init() { raceDetector = true }
