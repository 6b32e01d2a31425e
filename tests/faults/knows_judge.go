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

// deletions are when an untouched client learned that keys were deleted.
type deletions struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (d *deletions) of(key string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at[key]
}

func watchDeletions(ctx context.Context, cli *clientv3.Client, prefix string) *deletions {
	d := &deletions{at: map[string]time.Time{}}
	ch := cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithFilterPut())
	go func() {
		for r := range ch {
			now := time.Now()
			d.mu.Lock()
			for _, ev := range r.Events {
				d.at[string(ev.Kv.Key)] = now
			}
			d.mu.Unlock()
		}
	}()
	return d
}

// judge counts. A trial in which etcd removed the ticket before the bound that
// the wire shows goes to a row of its own, overlap or not.
func judge(s *suite, name string, i impl, trials []*held, gone *deletions) {
	var kept, violations, broke, unnoticed, reachable, idle int
	var overlap, early, livedOn time.Duration
	smallest := time.Hour
	for _, h := range trials {
		if h.idler != nil && h.idler.again {
			idle++
		}
		b := h.node.wire.bounds(h.lease)
		bound := b.ruled
		if i.Name() == (theirs{}).Name() {
			bound = b.naive
		}
		at := gone.of(h.key)
		// The next one holds when the key has gone, and may have heard of that a little before our watch did.
		if h.next.Before(at) && at.Sub(h.next) < slack {
			at = h.next
		}
		// After the end of the hold its own session may have revoked the lease.
		if !at.IsZero() && at.Before(bound) && at.Before(h.done) {
			broke++
			livedOn = max(livedOn, h.done.Sub(at))
			// Nobody can know before, but while the link is up it must be noticed
			// like any other removal.
			noticed := at.Add(knowsTTL/3 + slack)
			if cut := h.cutAt.Load(); time.Unix(0, cut).After(noticed) && h.done.After(noticed) {
				unnoticed++
			}
			continue
		}
		kept++
		if cut := h.cutAt.Load(); cut != 0 && h.done.Before(time.Unix(0, cut)) {
			reachable++
		}
		if h.idler == nil { // who idles gives up at once when it hears of another
			early = max(early, at.Sub(h.done), bound.Sub(h.done))
		}
		distance := h.next.Sub(h.done)
		if h.still {
			violations++
			overlap = max(overlap, -distance)
			continue
		}
		smallest = min(smallest, max(0, distance))
	}
	figure := fmt.Sprintf("smallest distance %s; given up early by at most %s", ms(smallest), ms(early))
	if violations > 0 {
		figure = fmt.Sprintf("overlap up to %s; given up early by at most %s", ms(overlap), ms(early))
	}
	if reachable > 0 {
		figure += fmt.Sprintf("; %d ended before the link was cut", reachable)
	}
	if idle > 0 {
		figure += fmt.Sprintf("; %d taken up again to the end", idle)
	}
	if kept == 0 {
		figure = "etcd broke its rules in every trial"
	}
	s.add(row{name: name, impl: i.Name(), trials: kept, violations: violations, figure: figure})
	if broke > 0 {
		s.add(row{name: name + ": etcd removed the ticket before the bound", impl: i.Name(), trials: broke, violations: unnoticed, apart: true,
			figure: fmt.Sprintf("the old hold lived on for at most %s", ms(livedOn))})
	}
}

func others(all []*cluster.Member, not *cluster.Member) []*cluster.Member {
	var o []*cluster.Member
	for _, m := range all {
		if m != not {
			o = append(o, m)
		}
	}
	return o
}

func addrs(members []*cluster.Member) []string {
	var a []string
	for _, m := range members {
		a = append(a, m.Addr())
	}
	return a
}

func compact(nodes []*node) []*node {
	var c []*node
	for _, n := range nodes {
		if n != nil {
			c = append(c, n)
		}
	}
	return c
}
