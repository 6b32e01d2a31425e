package etcdlock_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/etcdlock/etcdlock"
)

// What a newcomer meets whose endpoint is wrong: the error and the log say so.

// diary is a log that tests wait for.
type diary struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (d *diary) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all.Write(p)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all.String()
}

func TestASessionThatGetsNoLeaseSaysWhy(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, and nobody answers
	require.NoError(t, err)
	t.Cleanup(func() { _ = mute.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	cert, key, _ := newCertificate(t)
	secret := newServer(t, func(cfg *embed.Config) {
		anyPort := []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = anyPort, anyPort
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = cert, key
	})
	for what, c := range map[string]struct{ endpoint, cause string }{
		"nobody listens":         {gone.Addr().String(), "connection refused"},
		"nobody answers":         {mute.Addr().String(), "CONNECTING"},
		"a host without address": {"no-such-host.invalid:2379", "lookup no-such-host.invalid"},
		"TLS, asked plainly":     {secret, "error reading server preface"},
	} {
		t.Run(what, func(t *testing.T) {
			client := dial(t, c.endpoint, clientv3.Config{})
			begin := time.Now()
			_, err := etcdlock.NewSession(within(t, 2*time.Second), client)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Less(t, time.Since(begin), 3*time.Second)
			assert.ErrorContains(t, err, c.endpoint)
			assert.ErrorContains(t, err, c.cause)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log diary
			ended := make(chan error, 1)
			go func() {
				_, err := etcdlock.NewSession(ctx, client, etcdlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				ended <- err
			}()
			eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte("level=WARN")) }, "a warning")
			assert.Contains(t, log.String(), c.endpoint)
			assert.Contains(t, log.String(), c.cause)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
		})
	}
}
