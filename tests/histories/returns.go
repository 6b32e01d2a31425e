package main

import (
	"fmt"
	"strings"
	"time"
)

// This file has the check that calls return in time.

// returnLimit is how long after its context's end a call may return. The suite of experiments holds calls to 100 ms;
// here the machine is shared by dozens of goroutines and by the servers.
const returnLimit = time.Second

// limitOf is that of one call: Do and its like may wait a second for the confirmation of their release.
func limitOf(r record) int64 {
	if strings.HasSuffix(r.What, "Do") {
		return int64(returnLimit + time.Second)
	}
	return int64(returnLimit)
}

// checkReturns looks for calls that outstayed their context. A process that was stopped meanwhile is excused.
func (h *history) checkReturns() []finding {
	var found []finding
	for _, r := range h.others {
		if r.Due == 0 || r.Foreign || r.Return <= r.Due+limitOf(r) || h.stopped(r) {
			continue
		}
		found = append(found, finding{"return in time", fmt.Sprintf("%s of %s by %s came back %.3f s after its context had ended: %s",
			r.What, r.Name, r.Worker, float64(r.Return-r.Due)/1e9, r.Outcome)})
	}
	return found
}

func (h *history) stopped(r record) bool {
	for _, s := range h.stops {
		if s[0] <= r.Return && r.Due <= s[1]+int64(returnLimit) {
			return true
		}
	}
	return false
}
