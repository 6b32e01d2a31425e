//go:build unix

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// The tests run the program as processes of its own against a real etcd: this binary plays etcdlock, etcd, and the command
// under the lock, by a variable in its environment.

const roleEnv = "ETCDLOCK_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "etcdlock":
		_ = os.Unsetenv(roleEnv)
		os.Exit(program(os.Args[1:]))
	case "etcd":
		os.Exit(playEtcd())
	}
	if len(os.Args) > 1 && os.Args[1] == "beat" {
		beat(os.Args[2:])
	}
	lease.Suspended = func() time.Duration { return time.Duration(slept.Load()) }
	code := m.Run()
	if shared.stop != nil {
		shared.stop()
	}
	os.Exit(code)
}

// slept is how long this process believes that its machine has slept.
var slept atomic.Int64

// beat is a command under a lock: it ignores the signals that it names, and says each millisecond that it is alive, and
// when.
func beat(ignored []string) {
	for _, name := range ignored {
		s, err := signalOf(name)
		if err != nil {
			panic(err)
		}
		got := make(chan os.Signal, 16)
		signal.Notify(got, s)
		go func() {
			for s := range got {
				fmt.Println("got", nameOf(s.(syscall.Signal)))
			}
		}()
	}
	fmt.Println("pid", os.Getpid())
	for range time.Tick(time.Millisecond) {
		fmt.Println("beat", time.Now().UnixNano())
	}
}

// patience is what a test gives to what should take no time.
const patience = 20 * time.Second

// startEtcd starts a member on a free port.
func startEtcd(dir string, configure func(*embed.Config)) (*embed.Etcd, string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.UnsafeNoFsync = true
	cfg.BcryptCost = 4
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = anyPort, anyPort
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = anyPort, anyPort
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	if configure != nil {
		configure(cfg)
	}
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, "", err
	}
	select {
	case <-member.Server.ReadyNotify():
		return member, member.Clients[0].Addr().String(), nil
	case <-time.After(patience):
		member.Close()
		return nil, "", context.DeadlineExceeded
	}
}

// playEtcd is an etcd in a process of its own, until its stdin ends.
func playEtcd() int {
	member, endpoint, err := startEtcd(os.Getenv("DIR"), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(endpoint)
	_, _ = io.Copy(io.Discard, os.Stdin)
	member.Close()
	return 0
}

// shared is the etcd that most tests share, each with names of its own.
var shared struct {
	once     sync.Once
	endpoint string
	err      error
	stop     func()
}

func sharedEtcd(t *testing.T) string {
	t.Helper()
	shared.once.Do(func() {
		dir, err := os.MkdirTemp("", "etcdlock-cmd-") //nolint:usetesting // it outlives the test that starts it
		if err != nil {
			shared.err = err
			return
		}
		member, endpoint, err := startEtcd(dir, nil)
		shared.endpoint, shared.err = endpoint, err
		shared.stop = func() {
			if err == nil {
				member.Close()
			}
			_ = os.RemoveAll(dir)
		}
	})
	require.NoError(t, shared.err)
	return shared.endpoint
}

// ownEtcd is an etcd in a process of its own, that can be frozen.
func ownEtcd(t *testing.T) (endpoint string, process *os.Process) {
	t.Helper()
	cmd := exec.Command(self(t))
	cmd.Env = append(os.Environ(), roleEnv+"=etcd", "DIR="+t.TempDir())
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line), cmd.Process
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// client is a client of etcd's own.
func client(t *testing.T, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: patience, Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// keys lists what etcd has under a prefix.
func keys(t *testing.T, c *clientv3.Client, prefix string) (all []string) {
	t.Helper()
	resp, err := c.Get(soon(t), prefix, clientv3.WithPrefix())
	require.NoError(t, err)
	for _, kv := range resp.Kvs {
		all = append(all, string(kv.Key))
	}
	return all
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until cond holds.
func eventually(t *testing.T, cond func() bool, what string, args ...any) {
	t.Helper()
	end := time.Now().Add(patience)
	pause := time.NewTicker(2 * time.Millisecond)
	defer pause.Stop()
	for !cond() {
		require.Falsef(t, time.Now().After(end), what, args...)
		<-pause.C
	}
}

// name is a lock of this test alone.
func name(t *testing.T) string {
	t.Helper()
	return "/test/" + strings.ReplaceAll(t.Name(), "/", "-")
}

// waitsFor waits until n tickets are in the queue of a name.
func waitsFor(t *testing.T, c *clientv3.Client, name string, n int) {
	t.Helper()
	eventually(t, func() bool { return len(keys(t, c, name+"/")) == n }, "%d tickets", n)
}
