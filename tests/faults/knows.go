//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const stoppedCase = "own process stopped past the TTL"

func runKnows(ctx context.Context, s *suite) error {
	return s.eachImpl(ctx, cluster.Options{Members: 3, PeerLinks: true}, func(ctx context.Context, e *env, i impl) error {
		for _, k := range knowsCases {
			if !s.want(k.name) || s.short && !k.short {
				continue
			}
			if err := e.knows(ctx, s, k, i); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
		if !s.want(stoppedCase) {
			return nil
		}
		return e.stopped(ctx, s, i)
	})
}

// held is one trial: a hold, and what became of it.
type held struct {
	lock
	node  *node
	lease clientv3.LeaseID
	name  string
	key   string        // the ticket, remembered: a lost hold does not tell it
	cutAt *atomic.Int64 // when its node was cut off for good, in Unix nanoseconds
	done  time.Time     // its Done was seen closed
	next  time.Time     // the next holder returned from Lock
	still bool          // asked at next, it said that it held
	idler *idler        // nil unless it is released and taken up all the time
}

// On the lingering side, the last of a node's keys idle. Others queue there only
// when the fault has come, since the tickets give way to those whom they know of.
const (
	keysPerNode = 5
	idlePerNode = 2
)

func (e *env) knows(ctx context.Context, s *suite, k knowsCase, i impl) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	nodes := max(1, s.pick(150, 20)/keysPerNode)
	var away *cluster.Member
	leader, err := e.Leader(ctx)
	if err != nil {
		return err
	}
	healthy, on := e.Members, e.Members
	if k.whole != nil {
		away = leader
		if k.on == "follower" {
			away = others(e.Members, leader)[0]
			on = []*cluster.Member{away}
		}
		healthy = others(e.Members, away)
	}
	prefix := e.prefix("knows")
	watching, err := cluster.NewClient(addrs(healthy)...)
	if err != nil {
		return err
	}
	defer watching.Close()
	gone := watchDeletions(ctx, watching, prefix)

	all := make([]*node, nodes)
	trials := make([]*held, nodes*keysPerNode)
	var idle []*held // on the lingering side
	defer func() {
		for _, h := range idle {
			h.idler.end()
		}
		closeAll(compact(all))
	}()
	r := s.rand()
	stagger := func() time.Duration { return time.Duration(r.Int64N(int64(knowsTTL / 3))) }
	cutAt := make([]atomic.Int64, nodes)
	delays := make([]time.Duration, nodes)
	seeds := make([]uint64, nodes)
	for j := range delays {
		delays[j], seeds[j] = stagger(), r.Uint64()
	}
	// Sessions begin at random moments, so that the fault meets each of them at
	// another phase of its renewals.
	err = parallel(nodes, nodes, func(j int) error {
		if err := pause(ctx, delays[j]); err != nil {
			return err
		}
		n, err := e.node(ctx, i, knowsTTL, on...)
		if err != nil {
			return err
		}
		all[j] = n
		for q := range keysPerNode {
			h := &held{node: n, cutAt: &cutAt[j], name: fmt.Sprintf("%s/%d-%d", prefix, j, q)}
			h.lock = n.Mutex(h.name)
			if err := n.acquire(ctx, h.lock); err != nil {
				return err
			}
			h.lease, h.key = n.Lease(), h.Key()
			trials[j*keysPerNode+q] = h
		}
		return nil
	})
	if err != nil {
		return err
	}
	queued := trials
	if i.Linger() > 0 {
		queued = nil
		for j, h := range trials {
			if j%keysPerNode < keysPerNode-idlePerNode {
				queued = append(queued, h)
				continue
			}
			h.startIdling(ctx)
			idle = append(idle, h)
		}
	}
	wait, overtake, err := e.succeed(ctx, i, queued, healthy)
	if err != nil {
		return err
	}
	if err := pause(ctx, knowsTTL/3+stagger()); err != nil { // everyone has renewed
		return err
	}
	if k.whole != nil {
		defer func() { _ = away.Cont() }()
		if err := k.whole(ctx, e, away); err != nil {
			return err
		}
	}
	if k.isolate != nil {
		err := parallel(nodes, nodes, func(j int) error {
			err := k.isolate(ctx, all[j], rand.New(rand.NewPCG(seeds[j], 2)))
			cutAt[j].Store(time.Now().UnixNano())
			overtake(all[j], idle)
			return err
		})
		if err != nil {
			return err
		}
	} else {
		for _, n := range all {
			overtake(n, idle)
		}
	}
	if err := wait(); err != nil {
		return err
	}
	judge(s, k.name, i, trials, gone)
	return nil
}

// succeed queues another process's Lock behind each hold. The first function it
// returns waits for all of them and for the ends of the old holds; the second
// does the same for a node's idlers, once they are to be met by a fault.
func (e *env) succeed(ctx context.Context, i impl, trials []*held, healthy []*cluster.Member) (
	wait func() error, overtake func(*node, []*held), err error,
) {
	const width = 4
	var nodes []*node
	for range width {
		n, err := e.node(ctx, i, time.Minute, healthy...)
		if err != nil {
			closeAll(nodes)
			return nil, nil, err
		}
		nodes = append(nodes, n)
	}
	var wg sync.WaitGroup
	errs := make(chan error, 10*len(trials))
	for j, h := range trials {
		done, b := h.Done(), nodes[j%width].Rival(h.name)
		wg.Go(func() {
			select {
			case <-done:
				h.done = time.Now()
			case <-ctx.Done():
				errs <- fmt.Errorf("%s: the old hold never ended", h.name)
			}
		})
		wg.Go(func() {
			err := b.Acquire(ctx)
			// Asked in this order: a hold that ends between the two is late.
			h.still = h.Held()
			h.next = time.Now()
			if err != nil {
				errs <- fmt.Errorf("%s: next holder: %w", h.name, err)
			}
		})
	}
	finish := func() error {
		wg.Wait()
		closeAll(nodes)
		select {
		case err := <-errs:
			return err
		default:
			return nil
		}
	}
	overtake = func(n *node, idle []*held) {
		for j, h := range idle {
			if h.node != n {
				continue
			}
			b := nodes[j%width].Rival(h.name)
			wg.Go(func() {
				if err := h.overtake(ctx, b); err != nil {
					errs <- err
				}
			})
		}
	}
	for _, h := range trials {
		if _, err := e.waitKeys(ctx, h.name+"/", 2, 20*time.Second); err != nil {
			return nil, nil, err
		}
	}
	return finish, overtake, nil
}
