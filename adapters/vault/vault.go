// Package vaultlock has one server of a cluster be the active one, for Vault: the locks of an HABackend.
package vaultlock

import (
	"context"
	"errors"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/hashicorp/vault/sdk/physical"
)

// patience is how long etcd may take for an answer where the host gives no context.
const patience = 10 * time.Second

// Backend is the part of a physical.HABackend that elects. Put it beside the Backend that stores.
type Backend struct {
	Session *etcdlock.Session
	Prefix  string
}

// HAEnabled says that there is more than one server.
func (Backend) HAEnabled() bool { return true }

// LockWith returns a candidate for the lead of key, who will be known by value.
func (b Backend) LockWith(key, value string) (physical.Lock, error) {
	return &lock{etcdlock.NewElection(b.Session, b.Prefix+key), value}, nil
}

type lock struct {
	e     *etcdlock.Election
	value string
}

// Lock waits for the lead until stop is closed, and returns what is closed when the lead is over.
func (l *lock) Lock(stop <-chan struct{}) (<-chan struct{}, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := l.e.Campaign(ctx, l.value)
	switch {
	case err == nil:
		return l.e.Context().Done(), nil
	case ctx.Err() != nil:
		return nil, nil // stopped, and nothing is left behind
	}
	return nil, err
}

// Unlock steps down.
func (l *lock) Unlock() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.e.Resign(ctx)
}

// Value tells whether anybody leads, and who.
func (l *lock) Value() (bool, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	leader, err := l.e.Leader(ctx)
	if errors.Is(err, etcdlock.ErrNoLeader) {
		return false, "", nil
	}
	return err == nil, leader.Value, err
}
