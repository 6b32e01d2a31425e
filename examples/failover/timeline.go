package main

// The record of who was what, when, and the picture of it.

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// What a node can be; the picture shows these very characters.
const (
	master  = '#'
	standby = '.'
	asleep  = 'z'
	dead    = 'x'
)

const columns = 76

type change struct {
	at    time.Duration
	row   string // a node, "etcd" (whom it names), or "" for a mark above the picture
	state byte
}

type timeline struct {
	changes []change
	length  time.Duration
}

func (t *timeline) set(at time.Duration, row string, state byte) {
	t.changes = append(t.changes, change{at, row, state})
}

func (t *timeline) end(at time.Duration) { t.length = at }

// sorted is in the order of the moments, not of the hearing.
func (t *timeline) sorted() []change {
	all := slices.Clone(t.changes)
	slices.SortStableFunc(all, func(a, b change) int { return int(a.at - b.at) })
	return all
}

// nodeDigit is how the row of etcd shows a leader: by its number.
func nodeDigit(value string) byte {
	if value == "" {
		return '-'
	}
	return value[len(value)-1]
}

// twoMasters says when two nodes led at once, if ever. It looks at the moments
// themselves: the picture is too coarse for that.
func (t *timeline) twoMasters() string {
	leading := map[string]bool{}
	for _, c := range t.sorted() {
		if c.row == "" || c.row == "etcd" {
			continue
		}
		delete(leading, c.row)
		if c.state == master {
			leading[c.row] = true
		}
		if len(leading) > 1 {
			return fmt.Sprintf("two masters at %.3f s: %v", c.at.Seconds(), leading)
		}
	}
	return ""
}

func (t *timeline) String() string {
	column := 100 * time.Millisecond
	for _, nicer := range []time.Duration{200, 250, 500, 1000} {
		if time.Duration(columns)*column < t.length {
			column = nicer * time.Millisecond
		}
	}
	width := int(t.length/column) + 1

	var b strings.Builder
	fmt.Fprintf(&b, "who led when (a column is %v)\n\n", column)
	marks := []byte(strings.Repeat(" ", width))
	for _, c := range t.changes {
		if c.row == "" {
			marks[min(first(c.at, column), width-1)] = c.state
		}
	}
	row := func(name, content string) {
		b.WriteString(strings.TrimRight(fmt.Sprintf("%6s  %s", name, content), " ") + "\n")
	}
	row("", string(marks))
	for _, name := range []string{"node1", "node2", "node3", "etcd"} {
		row(name, t.row(name, column, width))
	}
	row("", axis(column, width))
	b.WriteString("\n        # master   . stands by   x killed   z frozen   etcd: the number of the node that it names, - nobody\n")
	b.WriteString("        1 the master is killed   2 it steps down   3 it is frozen   4 it is thawed\n")
	return b.String()
}

// row shows each column as what held in the middle of it.
func (t *timeline) row(name string, column time.Duration, width int) string {
	line := []byte(strings.Repeat(" ", width))
	for _, c := range t.sorted() {
		if c.row != name {
			continue
		}
		for i := first(c.at, column); i < width; i++ {
			line[i] = c.state
		}
	}
	return string(line)
}

// first is the first column whose middle is not before the moment.
func first(at, column time.Duration) int { return max(0, int((at+column/2-1)/column)) }

// axis has a number of seconds wherever there is room for one.
func axis(column time.Duration, width int) string {
	line := []byte(strings.Repeat(" ", width))
	every := int(2 * time.Second / column)
	for i := 0; i+4 <= width; i += every {
		copy(line[i:], fmt.Sprintf("%ds", time.Duration(i)*column/time.Second))
	}
	return string(line)
}
