package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the workers that take several names at once. Each such hold is recorded as one of every name, from the
// same call to the same end, so that each name is checked as ever: what LockAll returned it must hold in all of them.

// sets takes some of the names, in any order.
func (w *worker) sets(ctx context.Context, s *etcdlock.Session) {
	for w.stop.Err() == nil {
		pause(w.stop, w.between(5*time.Millisecond, 80*time.Millisecond))
		names := slices.Clone(mutexNames)
		w.rnd.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = names[:1+w.rnd.IntN(len(names))]
		if w.chance(4) {
			w.oneSet(ctx, s, names, "TryLockAll", w.between(20*time.Millisecond, w.cfg.TTL), etcdlock.TryLockAll)
		} else {
			w.oneSet(ctx, s, names, "LockAll", w.between(5*time.Millisecond, 3*w.cfg.TTL), w.bugLockAll())
		}
	}
}

type lockAll = func(context.Context, *etcdlock.Session, ...string) (*etcdlock.Hold, error)

// oneSet takes the names, works under them and releases them.
func (w *worker) oneSet(ctx context.Context, s *etcdlock.Session, names []string, what string, limit time.Duration, take lockAll) {
	var h *etcdlock.Hold
	var robbed *grantedByBug // by the bug
	token, keys := int64(0), []string(nil)
	all := func(rec record, each func(i int, rec *record)) {
		rec.Worker = w.id
		for i, name := range names {
			rec.Name, rec.Token = name, token
			if each != nil {
				each(i, &rec)
			}
			w.rec.add(rec)
		}
	}
	// ask makes one call with a context of its own.
	ask := func(limit time.Duration, rec record, f func(context.Context) error, each func(i int, rec *record)) error {
		actx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		rec.Call = clock()
		err := f(actx)
		rec.Return = clock()
		if rec.Outcome = outcome(actx, err); actx.Err() != nil {
			rec.Due = rec.Call + int64(limit)
		}
		if errors.As(err, &robbed) {
			rec.Outcome, err = "", nil
		}
		all(rec, each)
		return err
	}
	slices.Sort(names) // as LockAll has them
	err := ask(limit, record{Kind: isAcquire, What: what}, func(ctx context.Context) (err error) {
		mixed := slices.Clone(names)
		w.rnd.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		h, err = take(ctx, s, mixed...)
		if err == nil {
			token, keys = h.Token(), h.Keys()
		} else if errors.As(err, &robbed) {
			token = robbed.token
			for _, name := range names {
				keys = append(keys, name+"/"+robbed.key)
			}
		}
		return err
	}, func(i int, rec *record) {
		if len(keys) > 0 {
			rec.Key = keys[i]
		}
	})
	if err != nil {
		return
	}
	alive := func() bool {
		before := clock()
		if h != nil && h.Context().Err() != nil {
			return false
		}
		all(record{Kind: isAlive, Call: before}, nil)
		return true
	}
	d := w.between(time.Millisecond, 20*time.Millisecond)
	if w.chance(50) {
		d = w.between(w.cfg.TTL/10, 2*w.cfg.TTL)
	}
	for until := clock() + int64(d); alive() && clock() < until && w.stop.Err() == nil; {
		switch {
		case h == nil:
		case w.chance(25):
			_ = ask(w.cfg.TTL/3, record{Kind: isProof, What: "Verify"}, h.Verify, nil)
		case w.chance(25):
			w.guardedSet(ctx, h, names)
		}
		pause(ctx, min(d/4, 20*time.Millisecond)+time.Millisecond)
	}
	_ = ask(w.between(20*time.Millisecond, w.cfg.TTL), record{Kind: isEnd, What: "Release"}, func(ctx context.Context) error {
		if h != nil {
			return h.Release(ctx)
		}
		ops := make([]clientv3.Op, len(keys))
		for i, key := range keys {
			ops[i] = clientv3.OpDelete(key)
		}
		_, err := w.client.Txn(ctx).Then(ops...).Commit()
		return err
	}, nil)
}

// guardedSet writes the token for each name where only a holder of all may.
func (w *worker) guardedSet(ctx context.Context, h *etcdlock.Hold, names []string) {
	gctx, cancel := context.WithTimeout(ctx, w.cfg.TTL/3)
	defer cancel()
	puts := make([]clientv3.Op, len(names))
	for i, name := range names {
		puts[i] = clientv3.OpPut(guardedFor+name, token(h.Token())+" ")
	}
	rec := record{Kind: isGuarded, What: "Txn", Worker: w.id, Token: h.Token(), Call: clock()}
	resp, err := w.client.Txn(gctx).If(h.IsOwner()...).Then(puts...).Commit()
	rec.Return = clock()
	switch {
	case err != nil:
		rec.Outcome = "unanswered"
	case !resp.Succeeded:
		rec.Outcome = "refused"
	}
	for _, name := range names {
		rec.Name = name
		w.rec.add(rec)
	}
}

// bugLockAll is LockAll, or what the bug makes of it: it waits for one of the names only.
func (w *worker) bugLockAll() lockAll {
	if w.cfg.Bug != "half" {
		return etcdlock.LockAll
	}
	return func(ctx context.Context, s *etcdlock.Session, names ...string) (*etcdlock.Hold, error) {
		if len(names) < 2 {
			return etcdlock.LockAll(ctx, s, names...)
		}
		first, err := etcdlock.LockAll(ctx, s, names[0])
		if err != nil {
			return nil, err
		}
		leaf := fmt.Sprintf("%x-%d", s.Lease(), clock())
		ops := make([]clientv3.Op, len(names))
		for i, name := range names {
			ops[i] = clientv3.OpPut(name+"/"+leaf, s.Identity(), clientv3.WithLease(s.Lease()))
		}
		resp, err := w.client.Txn(ctx).Then(ops...).Commit()
		if err == nil {
			err = &grantedByBug{resp.Header.Revision, leaf}
		}
		return nil, errors.Join(err, first.Release(ctx))
	}
}
