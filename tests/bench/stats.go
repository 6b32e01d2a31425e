package main

import (
	"slices"
	"time"
)

// A sample is a set of measurements of one quantity.
type sample []float64

func (s *sample) add(v float64)           { *s = append(*s, v) }
func (s *sample) addTime(d time.Duration) { s.add(ms(d)) }
func ms(d time.Duration) float64          { return float64(d) / float64(time.Millisecond) }
func (s sample) median() float64          { return s.quantile(0.5) }

// quantile is the nearest-rank quantile, the mean of the middle two for the
// median of an even number; 0 for an empty sample.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	o := slices.Sorted(slices.Values(s))
	n := len(o)
	if q == 0.5 && n%2 == 0 {
		return (o[n/2-1] + o[n/2]) / 2
	}
	return o[min(n-1, int(q*float64(n)))]
}

// ratio is a over b, and 0 where it cannot be said.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
