//go:build unix

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// runRule keeps leases by itself, without a lock, to show what the rule is for.
// The leader is frozen with a renewal of each lease in flight; it wakes 300 ms
// before the others reach it, and after it has answered nothing more is sent. Half of the leases count from the
// sending of the renewal, half from that of a linearizable read before it.
func runRule(ctx context.Context, s *suite) error {
	if s.short {
		return nil // half a minute that tells about etcd, not about the lock
	}
	var mu sync.Mutex
	var total [2]leases
	if err := parallel(max(1, s.pick(400, 100)/100), 2, func(int) error {
		e, err := newEnv(ctx, cluster.Options{Members: 3, PeerLinks: true})
		if err != nil {
			return err
		}
		defer e.close()
		got, err := e.rule(ctx)
		mu.Lock()
		defer mu.Unlock()
		for k := range total {
			total[k].n += got[k].n
			total[k].early += got[k].early
			total[k].worst = max(total[k].worst, got[k].worst)
		}
		return err
	}); err != nil {
		return err
	}
	for k, name := range []string{"without: renewal sent + TTL", "with: read sent + TTL, terms compared"} {
		if total[k].n == 0 {
			return fmt.Errorf("%s: no renewal was answered", name)
		}
		s.add(row{name: name, trials: total[k].n, violations: total[k].early, ours: k == 1,
			figure: fmt.Sprintf("removed before the bound by up to %s", ms(total[k].worst))})
	}
	return nil
}

type leases struct {
	n, early int
	worst    time.Duration
}

func (e *env) rule(ctx context.Context) (got [2]leases, err error) {
	const n, ttl = 100, 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	leader, err := e.Leader(ctx)
	if err != nil {
		return got, err
	}
	// One client to the leader alone keeps the leases; another sees them go.
	via, err := cluster.NewClient(leader.Addr())
	if err != nil {
		return got, err
	}
	defer via.Close()
	healthy, err := cluster.NewClient(addrs(others(e.Members, leader))...)
	if err != nil {
		return got, err
	}
	defer healthy.Close()
	prefix := e.prefix("rule")
	gone := watchDeletions(ctx, healthy, prefix)
	ids := make([]clientv3.LeaseID, n)
	for j := range ids {
		g, err := via.Grant(ctx, int64(ttl/time.Second))
		if err != nil {
			return got, err
		}
		ids[j] = g.ID
		if _, err := via.Put(ctx, fmt.Sprintf("%s/%d", prefix, j), "", clientv3.WithLease(g.ID)); err != nil {
			return got, err
		}
	}
	if err := leader.Stop(); err != nil {
		return got, err
	}
	defer func() { _ = leader.Cont() }()
	e.unlink(leader)
	if err := pause(ctx, 4*time.Second); err != nil {
		return got, err
	}
	bounds := make([]time.Time, n)
	var wg sync.WaitGroup
	for j, id := range ids {
		wg.Go(func() {
			// Its own time limit: a renewal that is not answered does not count.
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			sent := time.Now()
			var term uint64
			if j%2 == 1 {
				r, err := via.Get(ctx, "read")
				if err != nil {
					return
				}
				term = r.Header.RaftTerm
			}
			if a, err := via.KeepAliveOnce(ctx, id); err == nil && a.TTL > 0 && a.RaftTerm >= term {
				bounds[j] = sent.Add(time.Duration(a.TTL) * time.Second)
			}
		})
	}
	if err := pause(ctx, time.Second); err != nil {
		return got, err
	}
	if err := e.wakeAlone(ctx, leader); err != nil {
		return got, err
	}
	wg.Wait()
	if _, err := e.waitKeys(ctx, prefix+"/", 0, 40*time.Second); err != nil {
		return got, err
	}
	if err := pause(ctx, 200*time.Millisecond); err != nil { // the watch sees the last of them
		return got, err
	}
	for j, bound := range bounds {
		if bound.IsZero() {
			continue
		}
		g := &got[j%2]
		g.n++
		if at := gone.of(fmt.Sprintf("%s/%d", prefix, j)); !at.IsZero() && at.Before(bound) {
			g.early++
			g.worst = max(g.worst, bound.Sub(at))
		}
	}
	return got, nil
}

// unlink takes a frozen leader's links to the others, so that no word of the
// next election lies in its buffers when it wakes.
func (e *env) unlink(leader *cluster.Member) {
	leader.PeerLink.Cut()
	for _, m := range others(e.Members, leader) {
		m.PeerLink.Drop()
	}
}

// wakeAlone thaws a leader while the members that deposed it stand still, so
// that for a moment it can believe that it leads and nobody tells it.
func (e *env) wakeAlone(ctx context.Context, leader *cluster.Member) error {
	defer leader.PeerLink.Resume()
	rest := others(e.Members, leader)
	for _, m := range rest {
		if err := m.Stop(); err != nil {
			return err
		}
		defer func() { _ = m.Cont() }()
	}
	if err := leader.Cont(); err != nil {
		return err
	}
	return pause(ctx, 300*time.Millisecond)
}
