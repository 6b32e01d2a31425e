package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// This file follows a range of keys: by a watch, by a list to begin from, and by another list once per third of the TTL,
// because a watch on a member that is frozen says nothing, nor does one that is ahead of a store restored from a backup.

// errRewound says that a list is as of an earlier revision than what was known before it: of another history.
var errRewound = errors.New("etcdlock: the store has gone back")

// feed is what follows. It belongs to the goroutine that runs it, which makes all the calls below.
type feed struct {
	q    *Tickets
	key  string
	opts []clientv3.OpOption

	list  func(context.Context) error    // reads everything; the watch has begun, and from there on its events tell the rest
	apply func(events []*clientv3.Event) // what one answer of the watch tells: whole revisions
	check func() reading                 // prepares to read everything again, linearizably
	told  func() bool                    // whether the watch has told of all that the checks have shown
	blind func()                         // the watch has broken: nothing is known until list is called again; may be nil
	early bool                           // check also while the watch does not open
}

// reading reads; take takes in what was read. Only take is called by the feed's goroutine: while an answer is under way,
// events go on.
type reading func(context.Context) (take func() error, err error)

// run follows until ctx ends or etcd refuses for good.
func (f *feed) run(ctx context.Context) error {
	var w rpc.Watch
	defer w.Stop()
	var pace rpc.Pace
	for {
		moved, err := f.pass(ctx, &w)
		if f.blind != nil {
			f.blind()
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !rpc.Transient(err):
			return err
		case moved:
			pace.Reset()
		}
		if !pace.Wait(ctx) {
			return ctx.Err()
		}
	}
}

// pass follows one watch until it breaks. The watch begins "from now on" (see rpc.Watch for why), then everything is read;
// from there on events tell. A check that knows more is normal where much happens: the events may be on their way. Where it
// goes on to know more a little later, the pass ends, and the next one opens its watch on another stream.
func (f *feed) pass(ctx context.Context, w *rpc.Watch) (moved bool, err error) {
	q, every := f.q, f.q.renewal()
	var beside sync.WaitGroup
	defer beside.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened, checked := make(chan error, 1), make(chan func() error, 1)
	beside.Go(func() {
		_, err := w.Start(ctx, q.c, f.key, f.opts...)
		opened <- err
	})
	var events clientv3.WatchChan // once the watch is open and the list is read
	again := time.NewTimer(every)
	defer again.Stop()
	for {
		select {
		case err := <-opened:
			if err == nil {
				err = f.list(ctx)
			}
			if err != nil {
				return false, err
			}
			events = w.Events
		case resp, ok := <-events:
			told := w.Read(resp, ok)
			if w.Broken() {
				return moved, rpc.ErrUnanswered
			}
			moved = moved || len(told) > 0
			f.apply(told)
		case <-again.C:
			switch {
			case events != nil && !f.told():
				w.LeaveStream(q.c)
				return moved, rpc.ErrUnanswered
			case events == nil && !f.early:
				again.Reset(every)
				continue
			}
			read := f.check()
			beside.Go(func() {
				take, err := read(ctx)
				if err != nil {
					take = func() error { return err }
				}
				checked <- take
			})
		case take := <-checked:
			switch err := take(); {
			case errors.Is(err, errRewound):
				if events != nil {
					w.LeaveStream(q.c)
				}
				return moved, rpc.ErrUnanswered
			case err != nil:
				return moved, err
			}
			again.Reset(every)
			if events != nil && !f.told() {
				again.Reset(q.c.AttemptTimeout(0))
			}
		case <-ctx.Done():
			return moved, ctx.Err()
		}
	}
}

// renewal is about the time from one renewal to the next: those go by the smaller of the TTLs asked and granted, this by the
// one granted.
func (q *Tickets) renewal() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lease.TTL / 3
}
