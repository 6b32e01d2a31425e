package etcdlock_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/url"
	"strings"
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

func TestCallsSayThatTheConnectionIsRefused(t *testing.T) {
	endpoint, stop := startServer(t, nil)
	var log diary
	s := newSession(t, dial(t, endpoint, clientv3.Config{}), etcdlock.WithTTL(3*time.Second),
		etcdlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	held, led := etcdlock.NewMutex(s, "refused/held"), etcdlock.NewElection(s, "refused/led")
	require.NoError(t, held.Lock(soon(t)))
	require.NoError(t, led.Campaign(soon(t), "v"))
	stop()
	for call, f := range map[string]func(context.Context) error{
		"Lock":     etcdlock.NewMutex(s, "refused/free").Lock,
		"Unlock":   held.Unlock,
		"Resign":   led.Resign,
		"Campaign": func(ctx context.Context) error { return etcdlock.NewElection(s, "refused/free").Campaign(ctx, "v") },
		"Holder":   func(ctx context.Context) error { _, err := held.Holder(ctx); return err },
	} {
		refused(t, call, f, endpoint)
	}
	eventually(t, func() bool { return strings.Contains(log.String(), "lease lost") }, "a warning")
	assert.Contains(t, log.String(), "connection refused")
	refused(t, "Lock after the loss", etcdlock.NewMutex(s, "refused/free").Lock, endpoint)
}

// refused checks that the error of a call tells which connection was refused, once the client has tried to make it anew.
func refused(t *testing.T, call string, f func(context.Context) error, endpoint string) {
	t.Helper()
	eventually(t, func() bool {
		err := f(within(t, 300*time.Millisecond))
		require.Error(t, err, call)
		return strings.Contains(err.Error(), endpoint) && strings.Contains(err.Error(), "connection refused")
	}, "%s tells why", call)
}
