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

// FirstOf is the first of some names as they are printed, each once, and how many more there are.
func FirstOf(names []string) (few []string, more int) {
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range names[:min(len(names), listed)] {
		few = append(few, Short(name))
	}
	return few, len(names) - len(few)
}
