package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recorded is what the story writes down when node1 is killed at 3 s, node2
// takes over at 6 s, and is frozen and thawed.
func recorded() *timeline {
	var t timeline
	s := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	t.set(s(0.1), "node1", master)
	t.set(s(0.1), "etcd", '1')
	t.set(s(0.6), "node2", standby)
	t.set(s(3), "", '1')
	t.set(s(3), "node1", dead)
	t.set(s(6), "node2", master)
	t.set(s(6), "etcd", nodeDigit(""))
	t.set(s(6.2), "etcd", nodeDigit("node2"))
	t.set(s(8), "", '3')
	t.set(s(8), "node2", asleep)
	t.end(s(10))
	return &t
}

func TestThePictureShowsWhoLedWhen(t *testing.T) {
	want := strings.Join([]string{
		"who led when (a column is 200ms)",
		"",
		"                       1                        3",
		" node1  ###############xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		" node2     ...........................##########zzzzzzzzzzz",
		" node3",
		"  etcd  111111111111111111111111111111-22222222222222222222",
		"        0s        2s        4s        6s        8s",
	}, "\n")
	got := recorded().String()
	require.Equal(t, want, strings.Join(strings.Split(got, "\n")[:8], "\n"))
}

func TestThePictureFitsALineHoweverLongTheRun(t *testing.T) {
	for _, length := range []time.Duration{time.Second, 13 * time.Second, 37 * time.Second, wholeRun} {
		picture := recorded()
		picture.end(length)
		for _, line := range strings.Split(picture.String(), "\n") {
			require.LessOrEqual(t, len(line), 110, "%v: %s", length, line)
		}
	}
}

func TestTwoMastersAreFoundHoweverShortTheOverlap(t *testing.T) {
	require.Empty(t, recorded().twoMasters())

	woken := recorded()
	woken.set(9*time.Second, "node3", master)
	require.Empty(t, woken.twoMasters(), "a frozen node does nothing")
	woken.set(9*time.Second+time.Microsecond, "node2", master)
	require.Contains(t, woken.twoMasters(), "two masters at 9.000 s")

	// Heard in another order than it happened.
	late := recorded()
	late.set(5*time.Second, "node3", master)
	late.set(4*time.Second, "node3", standby)
	require.NotEmpty(t, late.twoMasters())
}
