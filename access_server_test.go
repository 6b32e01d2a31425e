package etcdlock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// newServer starts a member as etcd itself configures one, on a TCP port that other processes can reach, with the
// v3lock and v3election services. It returns its endpoint.
func newServer(t *testing.T, configure func(*embed.Config)) string {
	t.Helper()
	endpoint, _ := startServer(t, configure)
	return endpoint
}

// startServer is newServer with a way to end the member before the test.
func startServer(t *testing.T, configure func(*embed.Config)) (endpoint string, stop func()) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.UnsafeNoFsync = true
	cfg.BcryptCost = 4 // the least: with the race detector on, a login would take seconds
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = anyPort, anyPort
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = anyPort, anyPort
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if configure != nil {
		configure(cfg)
	}
	member, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	stop = sync.OnceFunc(member.Close)
	t.Cleanup(stop)
	select {
	case <-member.Server.ReadyNotify():
	case <-soon(t).Done():
		require.Fail(t, "etcd did not start")
	}
	return member.Clients[0].Addr().String(), stop
}

// dial returns a client that is closed with the test. What cfg leaves out is as the README says.
func dial(t *testing.T, endpoint string, cfg clientv3.Config) *clientv3.Client {
	t.Helper()
	cfg.Endpoints = []string{endpoint}
	cfg.DialTimeout = 5 * time.Second
	cfg.Logger = zap.NewNop()
	client, err := clientv3.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// newCertificate makes a certificate that is its own authority, good for a server on 127.0.0.1 and for a client. It
// returns the files that etcd reads and what a Go client needs.
func newCertificate(t *testing.T) (certFile, keyFile string, cfg *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "etcdlock-test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, keyPEM, 0o600))

	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return certFile, keyFile, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// guarded is an etcd with authentication on: root, and a user "worker" that may read and write under "locks/" alone.
type guarded struct {
	root, worker *clientv3.Client
	login        func(user string) *clientv3.Client // every user's password is "secret"
}

func newGuarded(t *testing.T, configure func(*embed.Config)) *guarded {
	t.Helper()
	endpoint := newServer(t, configure)
	g := &guarded{login: func(user string) *clientv3.Client {
		t.Helper()
		return dial(t, endpoint, clientv3.Config{Username: user, Password: "secret"})
	}}
	open := dial(t, endpoint, clientv3.Config{})
	g.addUser(t, open, "root", "root")
	g.addUser(t, open, "worker", "locker", "locks/", "locks0")
	g.addUser(t, open, "nobody", "nothing")
	_, err := open.AuthEnable(soon(t))
	require.NoError(t, err)
	g.root, g.worker = g.login("root"), g.login("worker")
	return g
}

// addUser gives a user a role of its own, which may read and write the ranges: pairs of a first key and an end.
func (g *guarded) addUser(t *testing.T, admin *clientv3.Client, user, role string, ranges ...string) {
	t.Helper()
	_, err := admin.UserAdd(soon(t), user, "secret")
	require.NoError(t, err)
	_, err = admin.RoleAdd(soon(t), role)
	require.NoError(t, err)
	_, err = admin.UserGrantRole(soon(t), user, role)
	require.NoError(t, err)
	for i := 0; i+1 < len(ranges); i += 2 {
		_, err = admin.RoleGrantPermission(soon(t), role, ranges[i], ranges[i+1],
			clientv3.PermissionType(clientv3.PermReadWrite))
		require.NoError(t, err)
	}
}

// complaints keeps what a Session logs as a warning or an error: lost leases, lost tickets, renewals that are refused.
type complaints struct {
	slog.Handler
	mu  sync.Mutex
	all []string
}

func newComplaints() *complaints { return &complaints{Handler: slog.DiscardHandler} }

func (c *complaints) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (c *complaints) Handle(_ context.Context, r slog.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, r.Message)
	return nil
}

func (c *complaints) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

func (c *complaints) has(message string) bool { return slices.Contains(c.list(), message) }
