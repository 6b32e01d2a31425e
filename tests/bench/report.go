package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// A result is one line of the table: one quantity, the floor and both
// libraries, and what it is held against.
type result struct {
	row    string // which -run made it
	what   string
	where  string
	unit   string
	floor  float64 // 0: there is none
	ours   float64
	theirs float64
	goal   goal
	note   string
	x      int // the place on a chart's axis, for the lines that are drawn
}

// A goal is a bound on a value that the result gives rise to.
type goal struct {
	text  string
	value float64
	bound float64
	least bool // the value must be at least the bound, not at most
}

func atMost(value, bound float64, of string) goal {
	return goal{text: fmt.Sprintf("%s ≤ %s", of, number(bound)), value: value, bound: bound}
}

func atLeast(value, bound float64, of string) goal {
	return goal{text: fmt.Sprintf("%s ≥ %s", of, number(bound)), value: value, bound: bound, least: true}
}

func (g goal) verdict() string {
	switch {
	case g.text == "":
		return ""
	case g.least && g.value >= g.bound, !g.least && g.value <= g.bound:
		return "met"
	}
	return "**short**"
}

const (
	overFloor  = "etcdlock / floor"
	overTheirs = "etcdlock / concurrency"
)

// A report gathers results and shows each as it comes.
type report struct {
	mu      sync.Mutex
	out     io.Writer
	results []result // guarded by mu
	failed  []string // guarded by mu
	took    time.Duration
	load    string
	args    string // the command line
}

func (r *report) add(v result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results = append(r.results, v)
	fmt.Fprintf(r.out, "%-15s %-18s %-58s floor %-9s etcdlock %-9s concurrency %-9s %-9s %s\n",
		v.row, v.where, v.what, number(v.floor), number(v.ours), number(v.theirs), v.unit, v.goalText())
}

func (r *report) fail(row, where string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := fmt.Sprintf("%s (%s): %v", row, where, err)
	r.failed = append(r.failed, line)
	fmt.Fprintln(r.out, "FAILED", line)
}

func (v result) goalText() string {
	if v.goal.text == "" {
		return v.note
	}
	return strings.TrimSpace(fmt.Sprintf("%s: %s %s %s", v.goal.text, number(v.goal.value), v.goal.verdict(), v.note))
}

// number prints three significant digits without an exponent, and nothing
// for what was not measured.
func number(v float64) string {
	a := v
	if a < 0 {
		a = -a
	}
	switch {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return trim(fmt.Sprintf("%.1f", v))
	case a >= 1:
		return trim(fmt.Sprintf("%.2f", v))
	}
	return trim(fmt.Sprintf("%.3f", v))
}

func trim(s string) string {
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
