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

func TestWhoExcludesATry(t *testing.T) {
	const self = "of-3-w2-a-9"
	for _, c := range []struct {
		what   string
		class  Class
		weight int64
		queue  []string
		by     string // "" for nobody
	}{
		{"nobody is there", Exclusive, 1, nil, ""},
		{"a writer", Exclusive, 1, []string{"b-1", "c-1"}, "b-1"},
		{"readers and a writer", Exclusive, 1, []string{"read-b-1", "read-c-1"}, "read-b-1"},
		{"a reader joins readers", Reader, 1, []string{"read-b-1", "read-c-1"}, ""},
		{"a reader behind a writer that waits for readers", Reader, 1, []string{"read-b-1", "c-1", "read-d-1"}, "c-1"},
		{"a reader behind a writer", Reader, 1, []string{"b-1", "read-c-1"}, "b-1"},
		{"room", Of(3), 2, []string{"of-3-b-1"}, ""},
		{"no room for its weight", Of(3), 2, []string{"of-3-b-1", "of-3-c-1"}, "of-3-b-1"},
		{"room, but for one that waits", Of(3), 1, []string{"of-3-b-1", "of-3-w3-c-1"}, "of-3-b-1"},
		{"room, but for a writer that waits", Of(3), 1, []string{"of-3-b-1", "c-1"}, "c-1"},
		{"those of another number", Of(3), 1, []string{"of-2-b-1"}, "of-2-b-1"},
		{"itself", Of(3), 2, []string{"of-3-b-1", self, "c-1"}, self},
		{"itself, without room", Of(3), 2, []string{"of-3-w2-b-1", self}, "of-3-w2-b-1"},
	} {
		var all []*Contender
		for _, leaf := range c.queue {
			all = append(all, &Contender{Key: "a/" + leaf})
		}
		ticket := &Ticket{group: &group{Keys: KeysOf("a")}, kind: &Kind{Class: c.class, Weight: c.weight}, key: "a/" + self}
		by := ""
		if found := ticket.excludedBy(all); found != nil {
			by = found.Key[len("a/"):]
		}
		require.Equal(t, c.by, by, c.what)
	}
}
