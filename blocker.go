package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file finds out who holds, for the error of a caller that gives up. When it gives up there is no time left to
// ask. So somebody asks beforehand: once for all the goroutines of the Session that queue for the name, and beside their
// wait, since a hand-over must not wait for a word in an error. Nobody asks where a ticket of this Session holds.

// nameAfter is how long a wait must last before it is worth asking who holds, and how long before a caller's deadline
// that has to be.
const nameAfter = 50 * time.Millisecond

// whenToAsk fires when it is time to ask. Whoever is next reads one key for it. For whoever is further back, etcd has to
// read the whole queue: a crowd that did so as soon as it had queued would keep the server from handing over.
func (t *ticket) whenToAsk(ctx context.Context, v view) <-chan time.Time {
	after := nameAfter
	if len(v.ahead) > 1 {
		after = t.line.s.TTL() / 3
		if end, ok := ctx.Deadline(); ok {
			after = max(nameAfter, time.Until(end)-nameAfter)
		}
	}
	return time.After(after)
}

// askWhoHolds asks, unless somebody of the line does, or has just done it, or the holder is one of ours.
func (ln *line) askWhoHolds(v view) {
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.asking || ln.seen != nil && now().sub(ln.seenAt) < nameAfter || ln.ownLocked() != nil {
		return
	}
	ln.asking = s.spawnLocked(func() {
		asked := now()
		by := ln.first(v)
		s.mu.Lock()
		defer s.mu.Unlock()
		if ln.asking = false; by != nil {
			ln.seen, ln.seenAt = by, asked
		}
	})
}

// first asks any member who holds; nil if it cannot be told.
func (ln *line) first(v view) *LockedError {
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
		return nil
	}
	return ln.locked(resp.Kvs[0])
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
