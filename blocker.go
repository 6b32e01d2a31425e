package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file finds out who holds, for the error of a caller that gives up. When it gives up there is no time left to
// ask. So somebody asks beforehand: once for all the goroutines of the Session that queue for the name, and beside their
// wait, since a hand-over must not wait for a word in an error. Nobody asks where a ticket of this Session holds.

// nameAfter is how long a wait must last before it is worth asking who holds.
const nameAfter = 50 * time.Millisecond

// askWhoHolds asks, unless somebody does, or has done it since v was seen, or the holder is one of ours.
func (ln *line) askWhoHolds(v view) {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.asking || ln.seenAt >= v.rev || ln.ownLocked() != nil {
		return
	}
	ln.asking = s.spawnLocked(func() {
		by, at := ln.first(v)
		s.mu.Lock()
		defer s.mu.Unlock()
		if ln.asking = false; by != nil {
			ln.seen, ln.seenAt = by, at
		}
	})
}

// first asks any member who holds, and as of when that is; nil if it cannot be told.
func (ln *line) first(v view) (*LockedError, int64) {
	ctx, cancel := context.WithTimeout(ln.s.back, ln.s.patience(0))
	defer cancel()
	key, opts := ln.prefix, []clientv3.OpOption{
		clientv3.WithSerializable(), clientv3.WithPrefix(), clientv3.WithLimit(1),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend),
	}
	if len(v.ahead) == 1 { // known to hold; the scan of a long queue is saved
		key, opts = v.ahead[0].key, opts[:1]
	}
	resp, err := ln.s.client.Get(ctx, key, opts...)
	if err != nil || len(resp.Kvs) == 0 || !ln.direct(string(resp.Kvs[0].Key)) {
		return nil, 0
	}
	return ln.locked(resp.Kvs[0]), resp.Header.Revision
}

// blockerLocked is who holds, as far as this Session knows, for the error of t's caller.
func (t *ticket) blockerLocked() *LockedError {
	by := t.line.ownLocked()
	if by == nil {
		by = t.line.seen
	}
	if by == nil || by.Token >= t.rev {
		return &LockedError{Name: t.line.name}
	}
	return by
}

// ownLocked tells that a ticket of this Session holds, which needs no asking.
func (ln *line) ownLocked() *LockedError {
	if t := ln.holder; t != nil && t.state == held && !t.hold.lost() {
		return &LockedError{Name: ln.name, Holder: t.value, Token: t.rev, Key: t.key}
	}
	return nil
}
