package main

import (
	"context"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// startServers starts real server processes, whose write-ahead logs are
// really synced.
func startServers(ctx context.Context, e *env) error {
	s, err := cluster.Start(ctx, cluster.Options{Members: e.members})
	if err != nil {
		return err
	}
	e.onClose(func() { _ = s.Close() })
	e.endpoints = s.Endpoints()
	c, _, err := newClient(e.endpoints)
	if err != nil {
		return err
	}
	e.observer = c
	e.onClose(func() { _ = c.Close() })
	return nil
}

// delay puts a proxy in front of every member that hands on what it gets
// after a fixed time, in either direction, as a long wire would.
func (e *env) delay(oneWay time.Duration) error {
	if e.delayed != nil {
		return nil
	}
	for _, to := range e.endpoints {
		p, err := faultproxy.New(to)
		if err != nil {
			return err
		}
		e.onClose(func() { _ = p.Close() })
		p.Delay(faultproxy.Both, oneWay)
		e.delayed = append(e.delayed, p.Addr())
	}
	e.rtt = 2 * oneWay
	return nil
}
