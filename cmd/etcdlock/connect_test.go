//go:build unix

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
)

// certificate makes one that is its own authority, good for a server on 127.0.0.1 and for a client.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcdlock-test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return cert, key
}

func TestTLSByEtcdctlsFlagsAndEnvironment(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	other, _ := certificate(t)
	member, endpoint, err := startEtcd(t.TempDir(), func(cfg *embed.Config) {
		anyPort := []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = anyPort, anyPort
		cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = cert, key
		cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = cert, true
	})
	require.NoError(t, err)
	t.Cleanup(member.Close)
	p := lockAt(t, endpoint, "run", "--cacert", cert, "--cert", cert, "--key", key, "a", "-c", "exit 3")
	assert.Equal(t, 3, p.code(), p.err.String())
	p = prepared(t, endpoint, "run", "a", "-c", "exit 4")
	p.cmd.Env = append(p.cmd.Env, "ETCDCTL_CACERT="+cert, "ETCDCTL_CERT="+cert, "ETCDCTL_KEY="+key)
	p.start()
	assert.Equal(t, 4, p.code(), p.err.String())
	for want, flags := range map[string][]string{
		"certificate signed by unknown authority": {"--cacert", other, "--cert", cert, "--key", key},
		"error reading server preface":            {},
		"private key does not match":              {"--cacert", cert, "--cert", other, "--key", key},
	} {
		p = lockAt(t, endpoint, append([]string{"run", "a", "-c", "exit 3"}, flags...)...)
		assert.Equal(t, exitFailed, p.code())
		assert.Contains(t, p.err.String(), want)
		assert.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err.String())
	}
}

func TestTheEnvironmentIsEtcdctlsAndFlagsGoFirst(t *testing.T) {
	t.Parallel()
	p := prepared(t, "127.0.0.1:1", "run", "--endpoints", sharedEtcd(t), name(t), "-c", "exit 3")
	p.start()
	assert.Equal(t, 3, p.code(), p.err.String())
	p = prepared(t, "", "run", name(t), "-c", "exit 3")
	p.cmd.Env = append(p.cmd.Env, "ETCDCTL_DIAL_TIMEOUT=soon")
	p.start()
	assert.Equal(t, exitFailed, p.code())
	assert.Contains(t, p.err.String(), `ETCDCTL_DIAL_TIMEOUT="soon" in the environment: it takes a duration, such as`)
}

func TestUsersAndTheirPermissions(t *testing.T) {
	t.Parallel()
	member, endpoint, err := startEtcd(t.TempDir(), nil)
	require.NoError(t, err)
	t.Cleanup(member.Close)
	c := client(t, endpoint)
	for _, user := range []string{"root", "worker"} {
		_, err = c.UserAdd(soon(t), user, "secret")
		require.NoError(t, err)
		_, err = c.RoleAdd(soon(t), user)
		require.NoError(t, err)
		_, err = c.UserGrantRole(soon(t), user, user)
		require.NoError(t, err)
	}
	_, err = c.RoleGrantPermission(soon(t), "worker", "mine/", "mine0", clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(t, err)
	_, err = c.AuthEnable(soon(t))
	require.NoError(t, err)

	assert.Equal(t, 3, lockAt(t, endpoint, "run", "--user", "worker:secret", "mine", "-c", "exit 3").code())
	assert.Equal(t, 3, lockAt(t, endpoint, "run", "--user", "worker", "--password", "secret", "mine", "-c", "exit 3").code())
	for want, args := range map[string][]string{
		"permission denied":     {"--user", "worker:secret", "others"},
		"authentication failed": {"--user", "worker:wrong", "mine"},
		"user name is empty":    {"mine"},
	} {
		p := lockAt(t, endpoint, append([]string{"run", "-c", "exit 3"}, args...)...)
		assert.Equal(t, exitFailed, p.code())
		assert.Contains(t, p.err.String(), want)
		assert.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err.String())
	}
}
