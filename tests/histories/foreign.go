package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// This file has the clients of etcd's own concurrency package. What they believe may outlive their ticket, so only the
// order of their tickets is checked, and the end of a hold where etcd itself answered that it deleted the ticket.

// runForeign runs a worker for each of some names, each with a client and, between two troubles, a session of its own.
func runForeign(ctx, stop context.Context, cfg machineConfig, rec *recorder) error {
	var wg sync.WaitGroup
	names := []string{nested, plain, shared, pool, election}
	errs := make(chan error, len(names))
	for i, name := range names { // whoever lingers, these do not
		m := &machine{cfg: cfg, rec: rec, stop: stop}
		w := m.worker(fmt.Sprintf("concurrency %d", i), i)
		wg.Go(func() {
			for w.stop.Err() == nil {
				if err := w.foreign(ctx, name); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// foreign locks and unlocks until the first trouble: a session that is in doubt leaves keys that nobody removes, and
// its calls may hang with their context over. Then the client is closed, which unblocks what hangs, and the lease ends
// by itself.
func (w *worker) foreign(ctx context.Context, name string) error {
	client, err := cluster.NewClient(w.cfg.Endpoints...)
	if err != nil {
		return err
	}
	defer client.Close()
	deletions := &deletionRecorder{KV: client.KV}
	client.KV = deletions
	opened, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	lease, err := client.Grant(opened, int64(w.cfg.TTL/time.Second))
	if err != nil {
		pause(w.stop, 100*time.Millisecond)
		return nil
	}
	// The session lives with the client, not with the context of its opening.
	s, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID))
	if err != nil {
		return nil
	}
	defer s.Orphan()
	finished := make(chan struct{})
	hangs := context.AfterFunc(w.stop, func() {
		select {
		case <-finished:
		case <-time.After(5 * time.Second):
			client.Close() // a call of concurrency's can hang for as long as its client lives
		}
	})
	defer hangs()
	defer close(finished)
	for ok := true; ok && w.stop.Err() == nil; {
		pause(w.stop, w.between(time.Millisecond, 60*time.Millisecond))
		if name == election {
			ok = w.foreignElection(ctx, s, name)
		} else {
			ok = w.foreignMutex(ctx, s, name, deletions)
		}
	}
	rctx, cancel := context.WithTimeout(ctx, w.cfg.TTL)
	defer cancel()
	_, _ = client.Revoke(rctx, s.Lease()) // else it ends by itself
	return nil
}

func (w *worker) foreignMutex(ctx context.Context, s *concurrency.Session, name string, deletions *deletionRecorder) bool {
	mu := concurrency.NewMutex(s, name)
	rec := record{Kind: isAcquire, What: "concurrency Lock", Worker: w.id, Name: name, Call: clock(), Foreign: true}
	lctx, cancel := context.WithTimeout(ctx, 3*w.cfg.TTL)
	err := mu.Lock(lctx)
	cancel()
	if err != nil {
		return false
	}
	rec.Return, rec.Key, rec.Token = clock(), mu.Key(), createRevision(mu)
	w.rec.add(rec)
	pause(ctx, w.between(time.Millisecond, 20*time.Millisecond))
	rec = record{Kind: isEnd, What: "concurrency Unlock", Worker: w.id, Name: name, Token: rec.Token, Call: clock(), Foreign: true}
	uctx, cancel := context.WithTimeout(ctx, w.cfg.TTL)
	err = mu.Unlock(uctx)
	cancel()
	rec.Return, rec.Outcome, rec.Rev = clock(), outcome(ctx, err), deletions.take()
	w.rec.add(rec)
	return err == nil
}

func (w *worker) foreignElection(ctx context.Context, s *concurrency.Session, name string) bool {
	e := concurrency.NewElection(s, name)
	rec := record{Kind: isAcquire, What: "concurrency Campaign", Worker: w.id, Name: name, Call: clock(), Foreign: true}
	cctx, cancel := context.WithTimeout(ctx, 3*w.cfg.TTL)
	err := e.Campaign(cctx, w.id)
	cancel()
	if err != nil {
		return false
	}
	rec.Return, rec.Key, rec.Token = clock(), e.Key(), e.Rev()
	w.rec.add(rec)
	pause(ctx, w.between(time.Millisecond, 20*time.Millisecond))
	rec = record{Kind: isEnd, What: "concurrency Resign", Worker: w.id, Name: name, Token: rec.Token, Call: clock(), Foreign: true}
	rctx, cancel := context.WithTimeout(ctx, w.cfg.TTL)
	err = e.Resign(rctx)
	cancel()
	rec.Return, rec.Outcome = clock(), outcome(ctx, err)
	if err == nil && e.Header() != nil {
		rec.Rev = e.Header().Revision // counts only if the ticket was deleted at this very revision
	}
	w.rec.add(rec)
	return err == nil
}

// createRevision is what the guard compares with: concurrency tells it in no other way.
func createRevision(mu *concurrency.Mutex) int64 {
	guard := mu.IsOwner()
	return guard.GetCompare().GetCreateRevision()
}

// deletionRecorder remembers the revision of the last Delete that found its key. concurrency's Unlock does not tell
// whether it released anything.
type deletionRecorder struct {
	clientv3.KV

	mu  sync.Mutex
	rev int64
}

func (d *deletionRecorder) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	resp, err := d.KV.Delete(ctx, key, opts...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && resp.Deleted == 1 {
		d.rev = resp.Header.Revision
	}
	return resp, err
}

// take returns the revision and forgets it.
func (d *deletionRecorder) take() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	rev := d.rev
	d.rev = 0
	return rev
}
