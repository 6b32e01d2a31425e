// Package embedded starts a single etcd member inside the calling process, for
// the examples and their tests: a temporary directory, free ports on the
// loopback interface, and nothing left of either after Close.
//
// It is no part of the library. A service talks to a cluster that outlives it;
// a lock in an etcd that dies with its only client protects nothing.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Etcd is a running member. Close it.
type Etcd struct {
	member *embed.Etcd
	dir    string
}

// Start returns once the member serves requests, or with an error and nothing
// left behind. ctx bounds the start, not the life of the member.
//
// Everything but the addresses and the log is as etcd ships it, fsync included:
// the times that the examples print are those of a real, if lonely, member.
func Start(ctx context.Context) (_ *Etcd, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "etcdlock-etcd-")
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	e := &Etcd{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("embedded etcd: %w", err), e.Close())
		}
	}()

	cfg := embed.NewConfig()
	cfg.Dir = dir
	// Port 0 asks the kernel for a free one at the moment of listening. Looking
	// for a free port first and handing its number over would be a race. The
	// addresses the member advertises are wrong for it, which nobody notices: a
	// single member has no peers, and these clients never call Sync.
	any0 := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = any0, any0
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = any0, any0
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())

	if e.member, err = embed.StartEtcd(cfg); err != nil {
		return nil, err
	}
	select {
	case <-e.member.Server.ReadyNotify():
		return e, nil
	case err := <-e.member.Err():
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Endpoints is what a client dials.
func (e *Etcd) Endpoints() []string {
	return []string{e.member.Clients[0].Addr().String()}
}

// Close stops the member, waits for it, and removes its directory. Clients
// should be closed before: the member gives requests under way some seconds to
// finish.
func (e *Etcd) Close() error {
	if e.member != nil {
		e.member.Close()
	}
	return os.RemoveAll(e.dir)
}

// Dial returns a client with the settings that a user of locks should have:
// without a dial keepalive a connection that was swallowed by the network goes
// unnoticed for minutes.
func Dial(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(), // what matters comes back as an error
	})
}
