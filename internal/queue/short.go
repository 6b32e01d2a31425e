package queue

import (
	"fmt"
	"slices"
	"strings"
)

// This file keeps what is printed short: a name, and what etcd has as a value, can be megabytes long, and a Session can
// hold a hundred thousand locks.

const (
	shortAbove = 128 // bytes
	shortTo    = 64  // bytes
	listed     = 5
)

// Short is a text as it is printed: itself, or its beginning and its length.
func Short(s string) string {
	if len(s) <= shortAbove {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:shortTo], ""), len(s))
}

// List prints the first of some names, each once, and how many more there are.
func List(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	var b strings.Builder
	for i, name := range names[:min(len(names), listed)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", Short(name))
	}
	if n := len(names) - listed; n > 0 {
		fmt.Fprintf(&b, " and %d more", n)
	}
	return b.String()
}
