package queue

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// What is asked for by ranges of keys and what is read off a key must be the same class, also for keys put by hand.
func TestTheRangesOfAClassAgreeWithTheBeginningOfItsKeys(t *testing.T) {
	const prefix = "a/"
	in := func(r keyRange, key string) bool { return r.from <= key && key < r.to }
	for _, leaf := range append([]string{"", "\x00", "of-", "of-30-1-1", "of-300-1-1", "of-3.", "of-3,", "read,", "read.", "readx", "read-\xff\xff", "~"}, kinds...) {
		class, _ := Classify(leaf)
		for _, c := range []Class{Reader, Of(2), Of(3), Of(30)} {
			key := prefix + leaf
			assert.Equal(t, class == c, in(c.keys(prefix), key), "%q among those of %v", leaf, c)
			gated := 0
			for _, gate := range c.gates(prefix) {
				if in(gate, key) {
					gated++
				}
			}
			assert.Equal(t, class != c, gated == 1, "%q in the gates of %v", leaf, c)
		}
		assert.True(t, in(Exclusive.gates(prefix)[0], prefix+leaf), "%q is in the way of who holds alone", leaf)
	}
}
