package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// short is a run inside this process.
func short(t *testing.T, bug string, linger time.Duration, seed uint64, duration time.Duration) (*history, []finding) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	h, found, err := run(ctx, options{
		seed: seed, duration: duration, ttl: 2 * time.Second, members: 1, machines: 2, linger: linger, bug: bug, inside: true, tell: t.Logf})
	require.NoError(t, err)
	t.Log("\n" + h.summary())
	return h, found
}

func TestAShortHistoryIsClean(t *testing.T) {
	t.Parallel()
	h, found := short(t, "", 0, 1, 8*time.Second)
	assert.Empty(t, found)
	for _, name := range append([]string{election}, mutexNames...) {
		assert.Greater(t, len(h.holds[name]), 2, "too little happened on %s for the checks to mean anything", name)
	}
	assert.NotEmpty(t, h.observed)
	stayed := 0
	for _, name := range sorted(h.holds) {
		for _, x := range h.holds[name] {
			if h.stayed(x) {
				stayed++
			}
		}
	}
	assert.Greater(t, stayed, 1, "too few locks stayed taken for the checks to mean anything")
}

func TestAShortHistoryOfLingeringSessionsIsClean(t *testing.T) {
	t.Parallel()
	again := 0
	for seed := uint64(1); again <= 3 && seed <= 3; seed++ { // a lock that stays taken for a while leaves little time for others
		h, found := short(t, "", 300*time.Millisecond, seed, 8*time.Second)
		assert.Empty(t, found)
		for _, x := range h.holds[seldom] {
			if x.again {
				again++
			}
		}
	}
	assert.Greater(t, again, 3, "too few idle tickets were taken up for the checks to mean anything")
}

func TestEachDeliberateBugIsFound(t *testing.T) {
	t.Parallel()
	by := map[string]string{
		"outlive": "porcupine", "steal": "porcupine", "nowait": "porcupine", "rush": "porcupine", "barge": "porcupine", "overbook": "porcupine", "half": "porcupine", "rewind": "observers", "revive": "tenures", "hog": "tenures",
		"vanish": "stays", "retake": "porcupine", "keen": "stays",
	}
	for _, bug := range sorted(bugs) {
		t.Run(bug, func(t *testing.T) {
			t.Parallel()
			// A bug shows when clients meet. On a machine that is busy with other tests they may not in the first run.
			linger, duration := time.Duration(0), 3*time.Second
			switch bug {
			case "revive":
				linger = 100 * time.Millisecond
			case "vanish", "retake", "keen", "overbook": // a lock has to stay; somebody has to have all permits
				duration = 6 * time.Second
			case "hog": // others have to queue for a TTL
				linger, duration = 100*time.Millisecond, 6*time.Second
			}
			for seed := range uint64(5) {
				_, found := short(t, bug, linger, seed, duration)
				for _, f := range found {
					if strings.HasPrefix(f.check, by[bug]) {
						t.Log(f)
						return
					}
				}
			}
			t.Errorf("the checker did not see that %s", bugs[bug])
		})
	}
}

func TestASeedDecidesTheSchedule(t *testing.T) {
	in := surroundings{machines: 4, members: 3, servers: true, clients: true, ttl: 3 * time.Second, names: mutexNames}
	assert.Equal(t, schedule(7, time.Minute, in), schedule(7, time.Minute, in))
	assert.NotEqual(t, schedule(7, time.Minute, in), schedule(8, time.Minute, in))
	for _, f := range schedule(7, time.Minute, in) {
		assert.LessOrEqual(t, f.At+f.For, time.Minute, "%v", f)
	}
}

func TestTheModelTellsALockFromABrokenOne(t *testing.T) {
	x := func(token, call, ret, endCall, endRet int64) *hold {
		return &hold{token: token, call: call, ret: ret, endCall: endCall, endRet: endRet}
	}
	of := func(tenant string, x *hold) *hold { x.tenant = tenant; return x }
	as := func(class string, x *hold) *hold { x.class = class; return x }
	for name, c := range map[string]struct {
		holds []*hold
		want  porcupine.CheckResult
	}{
		"one after the other":          {[]*hold{x(1, 0, 1, 2, 3), x(2, 0, 4, 5, 6)}, porcupine.Ok},
		"in memory, before it is told": {[]*hold{x(1, 0, 1, 2, 9), x(2, 0, 3, 5, 6)}, porcupine.Ok},
		"two at once":                  {[]*hold{x(1, 0, 1, 5, 6), x(2, 0, 4, 7, 8)}, porcupine.Illegal},
		"a token twice":                {[]*hold{x(1, 0, 1, 2, 3), x(1, 4, 5, 6, 7)}, porcupine.Illegal},
		"a token twice in one tenure":  {[]*hold{of("s", x(1, 0, 1, 2, 3)), of("s", x(1, 4, 5, 6, 7))}, porcupine.Ok},
		"at once in one tenure":        {[]*hold{of("s", x(1, 0, 1, 5, 6)), of("s", x(1, 2, 3, 7, 8))}, porcupine.Illegal},
		"a token of another's tenure":  {[]*hold{of("s", x(1, 0, 1, 2, 3)), of("t", x(1, 4, 5, 6, 7))}, porcupine.Illegal},
		"after the tenure": {[]*hold{of("s", x(1, 0, 1, 2, 3)), of("t", x(2, 4, 5, 6, 7)), of("s", x(1, 8, 9, 10, 11))},
			porcupine.Illegal},
		"against the queue's order":       {[]*hold{x(2, 0, 1, 2, 3), x(1, 4, 5, 6, 7)}, porcupine.Illegal},
		"an end that nobody saw":          {[]*hold{x(1, 0, 1, 1, never), x(2, 0, 4, 5, 6)}, porcupine.Ok},
		"two at once, one of them unseen": {[]*hold{x(1, 0, 1, 5, never), x(2, 0, 4, 7, 8)}, porcupine.Illegal},
		"readers at once":                 {[]*hold{as("read", x(1, 0, 1, 8, 9)), as("read", x(2, 2, 3, 4, 5))}, porcupine.Ok},
		"readers in another order":        {[]*hold{as("read", x(2, 0, 1, 8, 9)), as("read", x(1, 2, 3, 4, 5))}, porcupine.Ok},
		"three permits of three at once":  {[]*hold{as("2 of 3", x(1, 0, 1, 8, 9)), as("1 of 3", x(2, 2, 3, 4, 5))}, porcupine.Ok},
		"four permits of three at once":   {[]*hold{as("2 of 3", x(1, 0, 1, 8, 9)), as("2 of 3", x(2, 2, 3, 4, 5))}, porcupine.Illegal},
		"permits of two minds at once":    {[]*hold{as("1 of 3", x(1, 0, 1, 8, 9)), as("1 of 2", x(2, 2, 3, 4, 5))}, porcupine.Illegal},
		"a reader beside a writer":        {[]*hold{x(1, 0, 1, 8, 9), as("read", x(2, 2, 3, 4, 5))}, porcupine.Illegal},
		"a writer beside the second of two readers": {
			[]*hold{as("read", x(1, 0, 1, 2, 3)), as("read", x(2, 0, 1, 8, 9)), x(3, 0, 4, 5, 6)}, porcupine.Illegal},
		"a reader that passed a writer": {
			[]*hold{as("read", x(1, 0, 1, 6, 7)), as("read", x(3, 2, 3, 4, 5)), x(2, 0, 8, 9, 10)}, porcupine.Illegal},
		"turns":                {[]*hold{as("read", x(1, 0, 1, 2, 3)), x(2, 0, 4, 5, 6), as("read", x(3, 0, 7, 8, 9)), as("read", x(4, 0, 7, 8, 9))}, porcupine.Ok},
		"permits":              {[]*hold{as("1 of 2", x(1, 0, 1, 8, 9)), as("1 of 2", x(2, 2, 3, 4, 5))}, porcupine.Ok},
		"one permit too many":  {[]*hold{as("1 of 2", x(1, 0, 1, 8, 9)), as("2 of 2", x(2, 2, 3, 4, 5))}, porcupine.Illegal},
		"permits of another n": {[]*hold{as("1 of 2", x(1, 0, 1, 8, 9)), as("1 of 3", x(2, 2, 3, 4, 5))}, porcupine.Illegal},
	} {
		assert.Equal(t, c.want, checkLock(c.holds).result, name)
	}
}
