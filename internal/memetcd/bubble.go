package memetcd

import _ "unsafe" // for go:linkname

// The client's watcher makes every stream's context a child of one that never ends, told by a channel of the package. A
// goroutine waits on it for each stream; and one that waits on a channel from outside keeps the time of a testing/synctest
// bubble from going on. A nil channel says the same and needs no goroutine.
//
//go:linkname neverEnds go.etcd.io/etcd/client/v3.valCtxCh
var neverEnds chan struct{}

func init() { neverEnds = nil }
