//go:build unix

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	healTTL   = 4 * time.Second
	healLimit = 15 * time.Second // for each check, once the fault is over
)

// scenario is a fault that ends; what stays, as a connection swallowed for good,
// is one too if another way is left.
type scenario struct {
	name    string
	members int
	short   bool
	args    []string
	setUp   func(context.Context, *env) error // before the sessions
	fault   func(context.Context, *suite, *env, []*node) error
	after   func(*env) // lifts what stood during the checks
}

var scenarios = []scenario{
	{name: "lease lost in a partition", members: 1, short: true, fault: func(ctx context.Context, _ *suite, _ *env, nodes []*node) error {
		for _, n := range nodes {
			n.hold(faultproxy.Both)
		}
		err := pause(ctx, 2*healTTL)
		for _, n := range nodes {
			n.resume()
		}
		return err
	}},
	{name: "etcd restarted with the same data", members: 1, short: true, fault: func(ctx context.Context, _ *suite, e *env, _ []*node) error {
		if err := e.Members[0].Restart(); err != nil {
			return err
		}
		return e.WaitReady(ctx)
	}},
	{name: "whole cluster down for a minute", members: 3, fault: func(ctx context.Context, _ *suite, e *env, _ []*node) error {
		for _, m := range e.Members {
			if err := m.Kill(); err != nil {
				return err
			}
		}
		if err := pause(ctx, time.Minute); err != nil {
			return err
		}
		for _, m := range e.Members {
			if err := m.Restart(); err != nil {
				return err
			}
		}
		return e.WaitReady(ctx)
	}},
	{name: "members replaced one by one", members: 3, fault: func(ctx context.Context, _ *suite, e *env, _ []*node) error {
		for _, m := range e.Members {
			if err := e.Replace(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "leader moved every second, ten times", members: 3, fault: moveLeader},
	{name: "auth token expired", members: 1, args: []string{"--auth-token-ttl=1", "--bcrypt-cost=4"}, setUp: enableAuth,
		fault: func(ctx context.Context, _ *suite, _ *env, _ []*node) error { return pause(ctx, 2*healTTL) }},
	{name: "one of three connections swallowed for good", members: 3, fault: func(ctx context.Context, _ *suite, _ *env, nodes []*node) error {
		for _, n := range nodes {
			n.proxies[0].Hold(faultproxy.Both)
		}
		return pause(ctx, 2*healTTL)
	}},
	{name: "one of three members frozen under a waiter", members: 3, fault: func(ctx context.Context, _ *suite, e *env, _ []*node) error {
		leader, err := e.Leader(ctx)
		if err != nil {
			return err
		}
		if err := others(e.Members, leader)[0].Stop(); err != nil {
			return err
		}
		return pause(ctx, healTTL)
	}, after: func(e *env) {
		for _, m := range e.Members {
			_ = m.Cont()
		}
	}},
	{name: "compaction, defragmentation, connections dropped", members: 1, short: true, fault: compactAndDefrag},
	{name: "no-space alarm raised and cleared", members: 1, fault: func(ctx context.Context, _ *suite, e *env, _ []*node) error {
		alarm := pb.NewMaintenanceClient(e.cli.ActiveConnection())
		st, err := e.cli.Status(ctx, e.Members[0].Addr())
		if err != nil {
			return err
		}
		r := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: st.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}
		if _, err := alarm.Alarm(ctx, r); err != nil {
			return err
		}
		if err := pause(ctx, 2*healTTL); err != nil {
			return err
		}
		r.Action = pb.AlarmRequest_DEACTIVATE
		_, err = alarm.Alarm(ctx, r)
		return err
	}},
}

func moveLeader(ctx context.Context, s *suite, e *env, _ []*node) error {
	for range s.pick(10, 3) {
		leader, err := e.Leader(ctx)
		if err != nil {
			return err
		}
		next := others(e.Members, leader)[0]
		to, err := e.cli.Status(ctx, next.Addr())
		if err != nil {
			return err
		}
		cli, err := cluster.NewClient(leader.Addr())
		if err != nil {
			return err
		}
		_, err = cli.MoveLeader(ctx, to.Header.MemberId)
		cli.Close()
		if err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

func enableAuth(ctx context.Context, e *env) error {
	if _, err := e.cli.UserAdd(ctx, "root", "secret"); err != nil {
		return err
	}
	if _, err := e.cli.RoleAdd(ctx, "root"); err != nil {
		return err
	}
	if _, err := e.cli.UserGrantRole(ctx, "root", "root"); err != nil {
		return err
	}
	if _, err := e.cli.AuthEnable(ctx); err != nil {
		return err
	}
	e.user = "root"
	return nil
}

func compactAndDefrag(ctx context.Context, _ *suite, e *env, nodes []*node) error {
	for range 3 {
		for range 100 {
			if _, err := e.cli.Put(ctx, "/other", "x"); err != nil {
				return err
			}
		}
		r, err := e.cli.Get(ctx, "/other")
		if err != nil {
			return err
		}
		for _, n := range nodes { // so that the watches begin anew, behind the compaction
			n.hold(faultproxy.Both)
		}
		if _, err := e.cli.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			return err
		}
		if _, err := e.cli.Defragment(ctx, e.Members[0].Addr()); err != nil {
			return err
		}
		for _, n := range nodes {
			n.reset()
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func runHeal(ctx context.Context, s *suite) error {
	// Two scenarios at a time: they mostly wait.
	return parallel(len(scenarios), 2, func(q int) error {
		sc := scenarios[q]
		if !s.want(sc.name) || s.short && !sc.short {
			return nil
		}
		return s.eachImpl(ctx, cluster.Options{Members: sc.members, Args: sc.args}, func(ctx context.Context, e *env, i impl) error {
			if err := e.heal(ctx, s, sc, i); err != nil {
				return fmt.Errorf("%s: %w", sc.name, err)
			}
			return nil
		})
	})
}
