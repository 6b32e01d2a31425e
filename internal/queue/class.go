package queue

import (
	"strconv"
	"strings"
)

// This file has the one rule for who holds. Every primitive is a class of tickets, and the class stands in the ticket's
// key, right after the name:
//
//	<lease>-<n>                exclusive: Mutex, LockAll and Election; also any key that nothing below fits, whoever made it
//	read-<lease>-<n>           reader
//	of-<N>-<lease>-<n>         permit of a semaphore of N; of-<N>-w<W>-<lease>-<n> one that weighs W
//
// A lease in hex begins with 0-9a-f, so a class word can never be taken for one. Keys are meant to stay: this is for
// ever.

// Class is what a ticket can share its turn with: others of its class, up to the limit.
type Class struct {
	word  string // what its keys begin with, after the name
	limit int64  // how much weight may hold at once, 0 for any
}

// Exclusive is the class of tickets that hold alone, Reader that of tickets that all hold together.
var (
	Exclusive = Class{limit: 1}
	Reader    = Class{word: "read-"}
)

// Of is the class of permits of which n hold together.
func Of(n int64) Class { return Class{word: "of-" + strconv.FormatInt(n, 10) + "-", limit: n} }

// alone reports whether a ticket of the class holds alone.
func (c Class) alone() bool { return c.limit == 1 }

// shares reports whether any number of tickets of the two classes hold together.
func (c Class) shares(other Class) bool { return c == other && c.limit == 0 }

// keyRange is the keys from one up to, and without, another.
type keyRange struct{ from, to string }

// permits reports whether the class is that of a semaphore.
func (c Class) permits() bool { return c != Exclusive && c != Reader }

// counted reports whether so many tickets of the class hold together: then those of it that are ahead are counted, see
// census.go.
func (c Class) counted() bool { return c.limit > 1 }

// gates are the ranges of keys under a prefix in which an earlier ticket excludes one of this class. A class that shares
// its turn leaves out its own keys: readers never look at readers.
func (c Class) gates(prefix string) []keyRange {
	end := prefix[:len(prefix)-1] + "0" // what comes after "/"
	if c.alone() {
		return []keyRange{{prefix, end}}
	}
	own := c.keys(prefix)
	return []keyRange{{prefix, own.from}, {own.to, end}}
}

// keys is the range of the keys under a prefix that have the word of the class.
func (c Class) keys(prefix string) keyRange {
	own := prefix + c.word
	return keyRange{own, own[:len(own)-1] + "."} // what comes after "-"
}

// Classify reads the class and the weight off the leaf of a ticket's key. A class is told by how the leaf begins, never
// by whether the rest makes sense: ranges of keys are asked for by the same beginnings, and the two must agree for keys
// that somebody put by hand, too. A permit whose weight cannot be read counts for all.
func Classify(leaf string) (c Class, weight int64) {
	if strings.HasPrefix(leaf, Reader.word) {
		return Reader, 1
	}
	if rest, ok := strings.CutPrefix(leaf, "of-"); ok {
		digits, rest, ok := strings.Cut(rest, "-")
		if n := number(digits); ok && n > 0 {
			return Of(n), permitWeight(rest, n)
		}
	}
	return Exclusive, 1
}

// unclassed is the leaf without the word of its class and its weight: of a ticket, its lease and its number.
func unclassed(leaf string) string {
	c, _ := Classify(leaf)
	rest := leaf[len(c.word):]
	if c != Exclusive && strings.HasPrefix(rest, "w") {
		_, rest, _ = strings.Cut(rest, "-")
	}
	return rest
}

// permitWeight reads the weight off what follows "of-<n>-".
func permitWeight(rest string, n int64) int64 {
	w, ticket := int64(1), rest
	if strings.HasPrefix(rest, "w") {
		digits, after, _ := strings.Cut(rest[1:], "-")
		w, ticket = number(digits), after
	}
	lease, count, ok := strings.Cut(ticket, "-")
	_, err := strconv.ParseUint(lease, 16, 64)
	if !ok || err != nil || number(count) == 0 || w == 0 || w > n {
		return n
	}
	return w
}

// number reads a positive number in its only spelling; 0 if it is none.
func number(digits string) int64 {
	n, err := strconv.ParseInt(digits, 10, 64)
	if digits == strconv.FormatInt(n, 10) && err == nil {
		return max(n, 0)
	}
	return 0
}

// admits is the rule: a ticket holds if and only if every earlier ticket of the name is of its class, and their weights
// and its own fit the class's limit. others says whether anybody of another class is ahead, same how much of its own.
//
// Why it is enough: let B be the newest holder. All that is ahead of B is of B's class and within its limit, so the
// holders are always the first so many of the queue, and exclude each other nowhere. Nobody comes before a ticket that
// exists, so what is ahead only shrinks: who holds, holds until its own key goes.
//
// Who asks it: holders, below, and nobody else; it is asked of a list of the queue (Keys.List, waiters), of permits (census.go)
// and of whom a try has found (excludedBy). A ticket that holds alone, or with any number, holds if nobody is in its gates
// (ahead.none). That nobody can be, letsInNext tells of the one behind a ticket that left, and emptyUpToLocked of one behind
// readers. What is decided without it: ownHolderLocked tells a try that a ticket of its own Session holds and is in its way,
// settle has it wait for those that are being deleted, and an election takes the first of its queue for the leader.
func (c Class) admits(weight int64, others bool, same int64) bool {
	return !others && (c.limit == 0 || same <= c.limit-weight)
}

// Holders returns how many of these keys hold: leaves of one name, in the order of their create revisions.
func Holders(leaves []string) int {
	return holders(len(leaves), func(i int) (Class, int64) { return Classify(leaves[i]) })
}

// holders returns how many of n tickets hold, whose class and weight nth tells in the order of their create revisions.
func holders(n int, nth func(int) (Class, int64)) int {
	var first Class
	same := int64(0)
	for i := range n {
		c, weight := nth(i)
		if i == 0 {
			first = c
		}
		if !c.admits(weight, c != first, same) {
			return i
		}
		same += weight
	}
	return n
}
