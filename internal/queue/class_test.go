package queue

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAClassIsToldByTheBeginningOfItsKeys(t *testing.T) {
	for leaf, want := range map[string]struct {
		class  Class
		weight int64
	}{
		"694d9ac6b7a4f31b-1":       {Exclusive, 1},
		"694d9ac6b7a4f31b":         {Exclusive, 1}, // concurrency's
		"":                         {Exclusive, 1},
		"zz":                       {Exclusive, 1},
		"read":                     {Exclusive, 1},
		"read.":                    {Exclusive, 1},
		"read,":                    {Exclusive, 1},
		"readx-694d-1":             {Exclusive, 1},
		"Read-694d-1":              {Exclusive, 1},
		"read-694d-1":              {Reader, 1},
		"read-":                    {Reader, 1},
		"read-\xff\xff":            {Reader, 1},
		"of-3-694d-1":              {Of(3), 1},
		"of-3-w2-694d-1":           {Of(3), 2},
		"of-3-w3-694d-1":           {Of(3), 3},
		"of-3-w4-694d-1":           {Of(3), 3}, // more than there is
		"of-3-w02-694d-1":          {Of(3), 3},
		"of-3-w-694d-1":            {Of(3), 3},
		"of-3-":                    {Of(3), 3},
		"of-3-zz":                  {Of(3), 3},
		"of-3-694d-01":             {Of(3), 3},
		"of-30-694d-1":             {Of(30), 1},
		"of-3":                     {Exclusive, 1},
		"of-03-694d-1":             {Exclusive, 1},
		"of-+3-694d-1":             {Exclusive, 1},
		"of-0-694d-1":              {Exclusive, 1},
		"of--1-694d-1":             {Exclusive, 1},
		"of-x-694d-1":              {Exclusive, 1},
		"of-99999999999999999999-": {Exclusive, 1},
	} {
		class, weight := Classify(leaf)
		assert.Equal(t, want.class, class, "%q", leaf)
		assert.Equal(t, want.weight, weight, "%q", leaf)
	}
}

// kinds are leaves of all classes, weights and limits that a random queue is made of.
var kinds = []string{
	"1-1", "zz", "read-1-1", "read-x", "of-1-1-1", "of-2-1-1", "of-2-w2-1-1", "of-3-1-1", "of-3-w2-1-1", "of-3-w3-1-1", "of-3-zz", "of-4-w3-1-1",
}

// exclude reports whether two tickets may never hold at once, whatever else is in the queue.
func exclude(a, b string) bool {
	ca, wa := Classify(a)
	cb, wb := Classify(b)
	return ca != cb || ca.limit > 0 && wa+wb > ca.limit
}

func TestTheRuleOnRandomQueues(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		queue := make([]string, r.IntN(8))
		for i := range queue {
			queue[i] = kinds[r.IntN(len(kinds))]
		}
		n := Holders(queue)
		require.Equal(t, len(queue) > 0, n > 0, "the first always holds: %q", queue)
		var sum int64
		for i := range n {
			for j := range i {
				require.False(t, exclude(queue[i], queue[j]), "%d and %d of %q hold", j, i, queue)
			}
			c, w := Classify(queue[i])
			sum += w
			require.True(t, c.limit == 0 || sum <= c.limit, "%d of %q hold", n, queue)
		}
		if n < len(queue) {
			c, w := Classify(queue[n])
			fits := c.limit == 0 || sum+w <= c.limit
			require.False(t, fits && !slices.ContainsFunc(queue[:n], func(leaf string) bool { return exclude(leaf, queue[n]) }),
				"%q: the one after the %d holders could hold, too", queue, n)
		}
		if len(queue) == 0 {
			continue
		}
		gone := r.IntN(len(queue))
		later := Holders(slices.Delete(slices.Clone(queue), gone, gone+1))
		if gone < n {
			n--
		}
		require.GreaterOrEqual(t, later, n, "who holds, holds on when another leaves: %q without %d", queue, gone)
	}
}
