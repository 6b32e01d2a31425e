package etcdlock

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// all are hooks that do nothing.
var all = Hooks{
	WaitBegun: func(context.Context, Wait) {}, WaitEnded: func(context.Context, WaitEnd) {}, HoldEnded: func(HoldEnd) {},
	Renewed: func(Renewal) {}, LeaseReplaced: func(LeaseReplacement) {}, Overrun: func(Overrun) {},
}

// Before there were hooks it was as many.
func TestWithoutHooksALockAllocatesNoMore(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(1000, lingering(t)), 7.0)
}

// BenchmarkHooks has what hooks add to a lock that costs nothing else, and to one that asks for what it gets: the medians of many
// rounds in each of which all take their turn. With hooks the time includes what the other goroutine does that calls them.
func BenchmarkHooks(b *testing.B) {
	for _, kind := range cycles {
		b.Run(kind.name, func(b *testing.B) {
			sides := []struct {
				unit  string
				cycle func()
				took  []time.Duration
			}{
				{unit: "none-ns/op", cycle: kind.of(b)},
				{unit: "empty-ns/op", cycle: kind.of(b, WithHooks(Hooks{}))},
				{unit: "all-ns/op", cycle: kind.of(b, WithHooks(all))},
			}
			const batch = 100
			for round := 0; b.Loop(); round++ {
				for i := range sides {
					side := &sides[(round+i)%len(sides)]
					begin := time.Now()
					for range batch {
						side.cycle()
					}
					side.took = append(side.took, time.Since(begin)/batch)
				}
			}
			for _, side := range sides {
				slices.Sort(side.took)
				b.ReportMetric(float64(side.took[len(side.took)/2]), side.unit)
			}
			b.ReportMetric(0, "ns/op") // of a round; the medians are what counts
		})
	}
}
