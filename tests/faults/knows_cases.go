//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

const knowsTTL = 4 * time.Second

// knowsCase is a way to lose touch. isolate begins once everything holds and
// waits; it is called for one node after the other has passed a random moment of
// its renewals, unless whole acts on the cluster for all of them.
type knowsCase struct {
	name    string
	on      string // which members the holders talk to: "all" or "follower"
	short   bool   // part of the short form
	isolate func(ctx context.Context, n *node, r *rand.Rand) error
	whole   func(ctx context.Context, e *env, m *cluster.Member) error // before isolate
}

func holdCase(d faultproxy.Direction) func(context.Context, *node, *rand.Rand) error {
	return func(_ context.Context, n *node, _ *rand.Rand) error { n.hold(d); return nil }
}

func freezeAndThaw(ctx context.Context, _ *env, m *cluster.Member) error {
	if err := m.Stop(); err != nil {
		return err
	}
	if err := pause(ctx, 6*time.Second); err != nil {
		return err
	}
	return m.Cont()
}

var knowsCases = []knowsCase{
	{name: "traffic lost both ways", on: "all", short: true, isolate: holdCase(faultproxy.Both)},
	{name: "answers lost", on: "all", isolate: holdCase(faultproxy.ToClient)},
	{name: "requests lost", on: "all", isolate: holdCase(faultproxy.ToServer)},
	{name: "answers 800 ms late, then lost", on: "all", isolate: func(ctx context.Context, n *node, r *rand.Rand) error {
		n.each(func(p *faultproxy.Proxy) { p.Delay(faultproxy.ToClient, 800*time.Millisecond) })
		err := pause(ctx, knowsTTL+time.Duration(r.Int64N(int64(knowsTTL/3))))
		n.hold(faultproxy.Both)
		return err
	}},
	{name: "its member frozen", on: "follower", whole: func(_ context.Context, _ *env, m *cluster.Member) error {
		return m.Stop()
	}},
	{name: "leader frozen, thawed, then traffic lost", on: "all",
		whole: freezeAndThaw,
		isolate: func(ctx context.Context, n *node, r *rand.Rand) error {
			err := pause(ctx, time.Duration(r.Int64N(int64(time.Second))))
			n.hold(faultproxy.Both)
			return err
		}},
	{name: "leader frozen, wakes alone, then traffic lost", on: "all",
		whole: func(ctx context.Context, e *env, m *cluster.Member) error {
			if err := m.Stop(); err != nil {
				return err
			}
			e.unlink(m)
			if err := pause(ctx, 3*time.Second); err != nil {
				return err
			}
			return e.wakeAlone(ctx, m)
		},
		isolate: holdCase(faultproxy.Both)},
	{name: "leader frozen, thawed, traffic lost 3 s later", on: "all", whole: freezeAndThaw,
		isolate: func(ctx context.Context, n *node, _ *rand.Rand) error {
			err := pause(ctx, 3*time.Second)
			n.hold(faultproxy.Both)
			return err
		}},
}
