package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file opens a Session for one call, and gives everything back at its end.

// membership is what a Session needs to know.
type membership struct {
	ttl      time.Duration
	identity string
}

func (m *membership) flags(fs *pflag.FlagSet) {
	fs.DurationVar(&m.ttl, "ttl", 30*time.Second, "`DURATION` by which the lock outlives the last word of etcd, and a crash")
	fs.StringVar(&m.identity, "identity", "", "`NAME` that others see as the holder (default host-pid)")
}

func (m *membership) check() error {
	if m.ttl < time.Second {
		return failed("--ttl %v: the least is 1s, and etcd counts in whole seconds", m.ttl)
	}
	return nil
}

// member is a Session, and the client under it.
type member struct {
	*etcdlock.Session
	client *clientv3.Client
	app    *app
}

// open opens a Session.
func (a *app) open(ctx context.Context, m membership) (*member, error) {
	// Who holds must not die of a reader that has gone away. Not ignored, which the command would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	client, err := a.conn.client(ctx)
	if err != nil {
		return nil, err
	}
	opts := []etcdlock.Option{etcdlock.WithTTL(m.ttl), etcdlock.WithLogger(a.logger())}
	if m.identity != "" {
		opts = append(opts, etcdlock.WithIdentity(m.identity))
	}
	s, err := a.conn.session(ctx, client, opts...)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return &member{s, client, a}, nil
}

// close gives everything back.
func (m *member) close() {
	if err := m.Close(); err != nil {
		m.app.logger().Warn(oneLine(err))
	}
	_ = m.client.Close()
}

// release gives the hold back, and reports whether it had ended before.
func (a *app) release(ctx context.Context, h *held) (lost bool) {
	if h.stays && h.ran {
		return a.leaveTaken(ctx, h)
	}
	ctx, cancel := context.WithTimeout(ctx, a.conn.commandTimeout)
	defer cancel()
	err := h.release(ctx)
	switch {
	case errors.Is(err, etcdlock.ErrLost):
		return true
	case err != nil:
		a.logger().Warn("the release is not confirmed: at the latest the lock is free when its lease has run out",
			"name", h.label(), "error", oneLine(err))
	}
	return false
}

// leaveTaken is release of a lock that stays taken. Where etcd is away it asks until the lease is over, whatever
// --command-timeout says: as long as that lasts it can still be made true.
func (a *app) leaveTaken(ctx context.Context, h *held) (lost bool) {
	log := a.logger()
	defer time.AfterFunc(a.conn.commandTimeout, func() {
		log.Warn("etcd does not answer: asking on for what --hold-at-least says", "name", h.label(), "for", h.lease().Left().Round(time.Second))
	}).Stop()
	err := h.release(ctx)
	if err != nil && !errors.Is(err, etcdlock.ErrLost) {
		log.Error("the command has ended, but the lock may be free before the time that --hold-at-least says: when its lease has run out",
			"name", h.label(), "error", oneLine(err))
	}
	return errors.Is(err, etcdlock.ErrLost)
}

// leaseID is a lease as etcdctl writes it, and as it stands in the keys of tickets.
func leaseID(id clientv3.LeaseID) string { return fmt.Sprintf("%x", int64(id)) }
