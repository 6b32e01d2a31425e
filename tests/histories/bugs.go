package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the deliberate bugs. They sit between the workers and the library, in the place of a broken lock: the
// checker must turn red on each.

// bugs lists them with what each does.
var bugs = map[string]string{
	"outlive":  "a holder goes on believing for a moment after its hold has ended",
	"steal":    "a release deletes whatever ticket is the first, which now is another's",
	"nowait":   "an acquisition is granted as soon as it has queued",
	"rush":     "a reader is granted as soon as it has queued, whoever writes or waits to",
	"barge":    "a writer is granted although readers hold, once no writer is ahead",
	"overbook": "a permit is granted beside a hold that has them all",
	"half":     "several names are granted as soon as one of them is",
	"hog":      "a Session that lingers takes its ticket up again and again although others queue",
	"vanish":   "a lock that is to stay taken is released at once",
	"retake":   "a Session takes its own ticket up that stays",
	"keen":     "the guard of a hold stays true as long as its lock stays",
	"revive":   "a Session that lingers takes its ticket up again although that has long gone",
	"rewind":   "an observer is shown a leader again whom another has followed",
}

// grantedByBug stands for a hold that no library granted.
type grantedByBug struct {
	token int64
	key   string
}

func (g *grantedByBug) Error() string { return "granted without waiting: " + g.key }

func token(n int64) string { return strconv.FormatInt(n, 10) }

// bugLock is mu.Lock, or what the bug makes of it.
func (w *worker) bugLock(mu *etcdlock.Mutex) func(context.Context) error {
	if w.cfg.Bug == "revive" && w.tenant != "" && w.before != nil && w.chance(5) {
		return func(ctx context.Context) error {
			pause(ctx, 2*w.cfg.Linger)
			return &grantedByBug{w.before.token, w.before.key}
		}
	}
	if w.cfg.Bug == "retake" && w.before != nil && clock() < w.before.until {
		return func(context.Context) error { return &grantedByBug{w.before.token, w.before.key} }
	}
	if w.cfg.Bug == "hog" && w.before != nil && w.before.ctx.Err() == nil {
		return func(context.Context) error { return &grantedByBug{w.before.token, w.before.key} }
	}
	if w.cfg.Bug == "barge" && mu.Name() == shared {
		return func(ctx context.Context) error {
			holder, err := mu.Holder(ctx)
			if err != nil || holder.Class != "read" {
				return mu.Lock(ctx)
			}
			return w.putTicket(ctx, mu.Name(), "")
		}
	}
	if w.cfg.Bug != "nowait" || !w.chance(10) {
		return mu.Lock
	}
	return func(ctx context.Context) error { return w.putTicket(ctx, mu.Name(), "") }
}

// bugRLock is m.RLock, or what the bug makes of it.
func (w *worker) bugRLock(m *etcdlock.RWMutex) func(context.Context) (*etcdlock.Hold, error) {
	if w.cfg.Bug != "rush" || !w.chance(3) {
		return m.RLock
	}
	return func(ctx context.Context) (*etcdlock.Hold, error) { return nil, w.putTicket(ctx, m.Name(), "read-") }
}

// putTicket queues and does not wait.
func (w *worker) putTicket(ctx context.Context, name, class string) error {
	s := w.sessions[0]
	key := fmt.Sprintf("%s/%s%x-%d", name, class, s.Lease(), clock()) // as a ticket, but not one of the Session's
	resp, err := w.client.Put(ctx, key, s.Identity(), clientv3.WithLease(s.Lease()))
	if err != nil {
		return err
	}
	return &grantedByBug{resp.Header.Revision, key}
}

// bugUnlock is mu.Unlock, or what the bug makes of it.
func (w *worker) bugUnlock(h *held, mu *etcdlock.Mutex) func(context.Context) error {
	if w.cfg.Bug == "hog" && h.name == seldom && w.stop.Err() == nil {
		return func(context.Context) error { return nil }
	}
	if h.byBug {
		return func(ctx context.Context) error {
			if w.cfg.Bug == "revive" || w.cfg.Bug == "retake" {
				return nil // there is nothing, or a later ticket of that name, or it stays
			}
			_, err := w.client.Delete(ctx, h.key)
			return err
		}
	}
	switch {
	case w.cfg.Bug == "outlive" && w.chance(2):
		return func(ctx context.Context) error {
			err := mu.Unlock(ctx)
			pause(ctx, 20*time.Millisecond)
			w.rec.add(record{Kind: isAlive, Worker: w.id, Name: h.name, Token: h.token, Call: clock()})
			return err
		}
	case w.cfg.Bug == "steal" && w.chance(2):
		return func(ctx context.Context) error {
			err := mu.Unlock(ctx)
			if first, err := mu.Holder(ctx); err == nil {
				_, _ = w.client.Delete(ctx, first.Key)
			}
			return err
		}
	}
	return mu.Unlock
}
