package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// stage is what the faults are done to.
type stage struct {
	ttl      time.Duration
	cluster  *cluster.Cluster // nil: the server is inside this process
	operator *clientv3.Client // past the proxies
	links    [][]*faultproxy.Proxy
	clients  []*process // nil: the machines are inside this process
	log      *eventLog
	tell     func(format string, args ...any)

	mu       sync.Mutex // guards what follows
	removals []removal
	thaws    []int64
	stops    [][2]int64
}

// play does the faults at their times and returns when all of them are over.
func (st *stage) play(ctx context.Context, faults []fault) {
	var wg sync.WaitGroup
	defer wg.Wait()
	begin := time.Now()
	for _, f := range faults {
		pause(ctx, time.Until(begin.Add(f.At)))
		if ctx.Err() != nil {
			return
		}
		wg.Go(func() {
			st.tell("%v", f)
			if err := st.do(ctx, f); err != nil {
				st.tell("%8.3fs %s: %v", f.At.Seconds(), f.Kind, err) // an operator's request may fail under the other faults
			}
		})
	}
}

func (st *stage) do(ctx context.Context, f fault) error {
	octx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	switch f.Kind {
	case "stop member", "stop leader", "kill member":
		return st.member(ctx, octx, f)
	case "move leader":
		return st.moveLeader(octx, f)
	case "delete holder", "delete waiter", "delete prefix", "revoke lease":
		return st.remove(octx, f)
	case "compact":
		_, err := st.operator.Compact(octx, st.log.newest())
		return err
	case "defragment":
		_, err := st.operator.Defragment(octx, st.operator.Endpoints()[f.Member])
		return err
	case "stop client":
		return st.clients[f.Machine].stopFor(ctx, f.For, st)
	case "kill client":
		return st.clients[f.Machine].killFor(ctx, f.For)
	}
	links := st.links[f.Machine]
	if f.Member >= 0 {
		links = links[f.Member : f.Member+1]
	}
	st.link(ctx, links, f)
	return nil
}

// link does a fault to some of a machine's connections. Where two such faults overlap, the first that ends ends both.
func (st *stage) link(ctx context.Context, links []*faultproxy.Proxy, f fault) {
	delay := time.Duration(f.Delay * float64(st.ttl))
	var after []func()
	for _, p := range links {
		switch f.Kind {
		case "hold both":
			p.Hold(faultproxy.Both)
		case "hold answers":
			p.Hold(faultproxy.ToClient)
		case "hold requests":
			p.Hold(faultproxy.ToServer)
		case "delay answers":
			p.Delay(faultproxy.ToClient, delay)
		case "delay requests":
			p.Delay(faultproxy.ToServer, delay)
		case "cut":
			p.Cut()
		case "drop":
			p.Drop()
		case "strand":
			p.Hold(faultproxy.ToServer)
		}
	}
	if f.Kind == "strand" { // requests collect, their senders are cut off, and the requests arrive much later
		pause(ctx, f.For/2)
		for _, p := range links {
			after = append(after, p.Strand())
			p.Resume()
		}
		pause(ctx, f.For/2)
	} else {
		pause(ctx, f.For)
		for _, p := range links {
			p.Resume()
		}
	}
	for _, deliver := range after {
		deliver()
	}
}

func (st *stage) member(ctx, octx context.Context, f fault) error {
	m := st.cluster.Members[f.Member]
	leader, err := st.cluster.Leader(octx)
	if f.Kind == "stop leader" {
		if err != nil {
			return err
		}
		m = leader
	}
	if f.Kind == "kill member" {
		if err := m.Kill(); err != nil {
			return err
		}
		pause(ctx, f.For)
		return m.Restart()
	}
	if err := m.Stop(); err != nil {
		return err
	}
	pause(ctx, f.For)
	st.mu.Lock()
	if m == leader || leader == nil {
		st.thaws = append(st.thaws, clock())
	}
	st.mu.Unlock()
	return m.Cont()
}

func (st *stage) moveLeader(ctx context.Context, f fault) error {
	leader, err := st.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	next := st.cluster.Members[f.Member]
	if next == leader {
		next = st.cluster.Members[(f.Member+1)%len(st.cluster.Members)]
	}
	at, err := cluster.NewClient(leader.Addr())
	if err != nil {
		return err
	}
	defer at.Close()
	to, err := st.operator.Status(ctx, next.Addr())
	if err != nil {
		return err
	}
	_, err = at.MoveLeader(ctx, to.Header.MemberId)
	return err
}

// remove lays hands on tickets, as an operator might. It notes that beforehand: the answer may be late or never come.
func (st *stage) remove(ctx context.Context, f fault) error {
	resp, err := st.operator.Get(ctx, f.Name+"/", clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil || len(resp.Kvs) == 0 {
		return err
	}
	chosen := resp.Kvs[:1]
	switch f.Kind {
	case "delete waiter":
		chosen = resp.Kvs[len(resp.Kvs)-1:]
	case "delete prefix":
		chosen = resp.Kvs
	}
	r := removal{At: clock()}
	ops := make([]clientv3.Op, 0, len(chosen))
	for _, kv := range chosen {
		r.Keys = append(r.Keys, string(kv.Key))
		ops = append(ops, clientv3.OpDelete(string(kv.Key)))
	}
	if f.Kind == "revoke lease" {
		r.Keys, r.Lease = nil, chosen[0].Lease
	}
	st.mu.Lock()
	st.removals = append(st.removals, r)
	st.mu.Unlock()
	if f.Kind == "revoke lease" {
		_, err = st.operator.Revoke(ctx, clientv3.LeaseID(r.Lease))
	} else {
		_, err = st.operator.Txn(ctx).Then(ops...).Commit()
	}
	return err
}

// heal ends what the faults may have left.
func (st *stage) heal(ctx context.Context) error {
	for _, links := range st.links {
		for _, p := range links {
			p.Resume()
		}
	}
	if st.cluster == nil {
		return nil
	}
	return st.cluster.WaitReady(ctx)
}

// leftovers waits for the queues to be empty and returns what stays in them all the same.
func (st *stage) leftovers(ctx context.Context, limit time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var left []string
	for {
		resp, err := st.operator.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithKeysOnly())
		switch {
		case err == nil && len(resp.Kvs) == 0:
			return nil, nil
		case err == nil:
			left = nil
			for _, kv := range resp.Kvs {
				left = append(left, fmt.Sprintf("%s (created at %d)", kv.Key, kv.CreateRevision))
			}
		case !errors.Is(err, ctx.Err()):
			return nil, err
		}
		if ctx.Err() != nil {
			return left, nil
		}
		pause(ctx, 50*time.Millisecond)
	}
}
