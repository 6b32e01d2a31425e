package etcdlock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"

	"github.com/etcdlock/etcdlock"
)

// fleet is one etcd and everything that can lock in it.
type fleet struct {
	endpoint string
	client   *clientv3.Client
	etcdctl  string            // the built command
	shared   *etcdlock.Session // the one that some of ours share
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	etcdctl := filepath.Join(t.TempDir(), "etcdctl")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", etcdctl, "go.etcd.io/etcd/etcdctl/v3")
	build.Dir = moduleDir
	out, err := build.CombinedOutput()
	require.NoErrorf(t, err, "%s", out)
	f := &fleet{etcdctl: etcdctl, endpoint: newServer(t, nil)}
	f.client = dial(t, f.endpoint, clientv3.Config{})
	f.shared = newSession(t, f.client, etcdlock.WithIdentity("shared"))
	return f
}

// moduleDir is read before any test changes the directory, as etcd's test framework does.
var moduleDir = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return dir
}()

// contender is one way to hold a name. take returns once it holds, with the key of its ticket; give lets go. After a
// take that failed the contender may take again.
type contender struct {
	kind string
	take func(ctx context.Context) (key string, err error)
	give func(ctx context.Context) error

	try      func(ctx context.Context) (key string, err error) // nil if it cannot; errBusy
	proclaim func(ctx context.Context, value string) error     // nil if it cannot
	reads    bool                                              // it shares its turn with others that read
	// patient says that a take that is cut short may leave its ticket behind, which blocks everyone: the clean-up of
	// etcd's concurrency package only knows of a ticket whose answer arrived.
	patient bool
}

var errBusy = errors.New("busy")

// maker makes a contender; an election campaigns with value.
type maker func(t *testing.T, f *fleet, name, value string) *contender

func lockKinds() []maker {
	return []maker{ourMutex, ourSharedMutex, concurrencyMutex, etcdctlLock, v3lock}
}

func readerKinds() []maker {
	return []maker{
		func(t *testing.T, f *fleet, name, value string) *contender {
			t.Helper()
			return ofReader("reader", etcdlock.NewRWMutex(newSession(t, f.client, etcdlock.WithIdentity(value)), name))
		},
		func(_ *testing.T, f *fleet, name, _ string) *contender {
			return ofReader("reader of a shared Session", etcdlock.NewRWMutex(f.shared, name))
		},
	}
}

func ofReader(kind string, m *etcdlock.RWMutex) *contender {
	var h *etcdlock.Hold
	taking := func(take func(context.Context) (*etcdlock.Hold, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (key string, err error) {
			h, err = take(ctx)
			if errors.Is(err, etcdlock.ErrLocked) && ctx.Err() == nil {
				err = errBusy
			}
			return h.Key(), err
		}
	}
	return &contender{
		kind: kind, reads: true, take: taking(m.RLock), try: taking(m.TryRLock),
		give: func(ctx context.Context) error { return h.Release(ctx) },
	}
}

func electionKinds() []maker {
	return []maker{ourElection, concurrencyElection, etcdctlElect, v3election}
}

func ourMutex(t *testing.T, f *fleet, name, value string) *contender {
	t.Helper()
	return ofMutex("Mutex", etcdlock.NewMutex(newSession(t, f.client, etcdlock.WithIdentity(value)), name))
}

func ourSharedMutex(_ *testing.T, f *fleet, name, _ string) *contender {
	return ofMutex("Mutex of a shared Session", etcdlock.NewMutex(f.shared, name))
}

func ofMutex(kind string, m *etcdlock.Mutex) *contender {
	return &contender{
		kind: kind,
		take: func(ctx context.Context) (string, error) { err := m.Lock(ctx); return m.Key(), err },
		give: m.Unlock,
		try: func(ctx context.Context) (string, error) {
			err := m.TryLock(ctx)
			if errors.Is(err, etcdlock.ErrLocked) {
				err = errBusy
			}
			return m.Key(), err
		},
	}
}

func ourElection(t *testing.T, f *fleet, name, value string) *contender {
	t.Helper()
	e := etcdlock.NewElection(newSession(t, f.client), name)
	return &contender{
		kind:     "Election",
		take:     func(ctx context.Context) (string, error) { err := e.Campaign(ctx, value); return e.Key(), err },
		give:     e.Resign,
		proclaim: e.Proclaim,
	}
}

func oldSession(t *testing.T, f *fleet) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(f.client, concurrency.WithTTL(10))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func concurrencyMutex(t *testing.T, f *fleet, name, _ string) *contender {
	t.Helper()
	m := concurrency.NewMutex(oldSession(t, f), name)
	return &contender{
		kind: "concurrency.Mutex", patient: true,
		take: func(ctx context.Context) (string, error) { err := m.Lock(ctx); return m.Key(), err },
		give: m.Unlock,
		try: func(ctx context.Context) (string, error) {
			err := m.TryLock(ctx)
			if errors.Is(err, concurrency.ErrLocked) {
				err = errBusy
			}
			return m.Key(), err
		},
	}
}

func concurrencyElection(t *testing.T, f *fleet, name, value string) *contender {
	t.Helper()
	e := concurrency.NewElection(oldSession(t, f), name)
	return &contender{
		kind: "concurrency.Election", patient: true,
		take:     func(ctx context.Context) (string, error) { err := e.Campaign(ctx, value); return e.Key(), err },
		give:     e.Resign,
		proclaim: e.Proclaim,
	}
}

// leased runs one acquisition through a service, with a lease of its own: the services leave leases to their callers.
// When it fails the lease is revoked, and with it a ticket whose answer was lost.
func (f *fleet) leased(ctx context.Context, take func(lease int64) error) error {
	resp, err := f.client.Grant(ctx, 30)
	if err != nil {
		return err
	}
	if err = take(int64(resp.ID)); err != nil {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_, rerr := f.client.Revoke(rctx, resp.ID)
		err = errors.Join(err, rerr)
	}
	return err
}

func v3lock(_ *testing.T, f *fleet, name, _ string) *contender {
	service := v3lockpb.NewLockClient(f.client.ActiveConnection())
	var key []byte
	return &contender{
		kind: "v3lock",
		take: func(ctx context.Context) (string, error) {
			err := f.leased(ctx, func(lease int64) error {
				resp, err := service.Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name), Lease: lease})
				key = resp.GetKey()
				return err
			})
			return string(key), err
		},
		give: func(ctx context.Context) error {
			_, err := service.Unlock(ctx, &v3lockpb.UnlockRequest{Key: key})
			return err
		},
	}
}

func v3election(_ *testing.T, f *fleet, name, value string) *contender {
	service := v3electionpb.NewElectionClient(f.client.ActiveConnection())
	var leader *v3electionpb.LeaderKey
	return &contender{
		kind: "v3election",
		take: func(ctx context.Context) (string, error) {
			err := f.leased(ctx, func(lease int64) error {
				resp, err := service.Campaign(ctx,
					&v3electionpb.CampaignRequest{Name: []byte(name), Lease: lease, Value: []byte(value)})
				leader = resp.GetLeader()
				return err
			})
			return string(leader.GetKey()), err
		},
		give: func(ctx context.Context) error {
			_, err := service.Resign(ctx, &v3electionpb.ResignRequest{Leader: leader})
			return err
		},
		proclaim: func(ctx context.Context, value string) error {
			_, err := service.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: leader, Value: []byte(value)})
			return err
		},
	}
}

func etcdctlLock(t *testing.T, f *fleet, name, _ string) *contender {
	t.Helper()
	return f.process(t, "etcdctl lock", "lock", name)
}

func etcdctlElect(t *testing.T, f *fleet, name, value string) *contender {
	t.Helper()
	return f.process(t, "etcdctl elect", "elect", name, value)
}

// process is a contender that is a process of etcdctl's: it prints its key once it holds and lets go on SIGINT.
func (f *fleet) process(t *testing.T, kind string, args ...string) *contender {
	t.Helper()
	var cmd *exec.Cmd
	return &contender{
		kind: kind,
		take: func(context.Context) (string, error) {
			var lines *bufio.Scanner
			cmd, lines = f.start(t, args...)
			if !lines.Scan() {
				return "", fmt.Errorf("%s: no key printed: %w", kind, errors.Join(lines.Err(), cmd.Wait()))
			}
			return lines.Text(), nil
		},
		give: func(context.Context) error {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				return err
			}
			return cmd.Wait()
		},
	}
}

// start runs etcdctl, to be killed at the end of the test if it still runs then.
func (f *fleet) start(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), f.etcdctl, append([]string{"--endpoints", f.endpoint}, args...)...)
	cmd.Stderr = io.Discard
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil { // not in the test's goroutine: no require
		t.Error(err)
		return cmd, bufio.NewScanner(&io.LimitedReader{})
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}
