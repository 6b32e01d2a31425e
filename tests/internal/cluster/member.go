package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Member is one etcd process and its data, which outlives the process.
type Member struct {
	Name string
	// PeerLink carries the connections that other members open to this one; nil
	// unless Options.PeerLinks.
	PeerLink *faultproxy.Proxy

	c              *Cluster
	dir            string // data directory and log
	addr           string // for clients
	peer, listen   string // for members: as the others know it, and where it listens
	state, initial string // how it bootstraps when its directory is empty

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process of cmd is gone
}

// Addr is the address for clients, host:port. It never changes.
func (m *Member) Addr() string { return m.addr }

// Log is the path of the log of every process that the member has had.
func (m *Member) Log() string { return m.dir + ".log" }

func (m *Member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runningLocked() {
		return fmt.Errorf("cluster: %s already runs", m.Name)
	}
	log, err := os.OpenFile(m.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer log.Close() // the child has its own copy
	args := append([]string{
		"--name", m.Name, "--data-dir", m.dir, "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", "http://" + m.addr, "--advertise-client-urls", "http://" + m.addr,
		"--listen-peer-urls", "http://" + m.listen, "--initial-advertise-peer-urls", "http://" + m.peer,
		"--initial-cluster", m.initial, "--initial-cluster-state", m.state,
		"--initial-cluster-token", fmt.Sprintf("%s-%d", filepath.Base(m.c.dir), m.c.token),
	}, m.c.opt.Args...)
	cmd := exec.Command(m.c.opt.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	exited := make(chan struct{})
	m.cmd, m.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(exited)
	}()
	return nil
}

func (m *Member) runningLocked() bool {
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.exited:
		return false
	default:
		return true
	}
}

// Stop freezes the process (SIGSTOP): its connections stay up and say nothing.
func (m *Member) Stop() error { return m.signal(sigStop) }

// Cont lets a frozen process go on (SIGCONT).
func (m *Member) Cont() error { return m.signal(sigCont) }

func (m *Member) signal(sig os.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.runningLocked() {
		return fmt.Errorf("cluster: %s does not run", m.Name)
	}
	return m.cmd.Process.Signal(sig)
}

// Kill ends the process at once (SIGKILL), frozen or not, and waits for it.
// A member that does not run is left as it is.
func (m *Member) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.runningLocked() {
		return nil
	}
	err := m.cmd.Process.Kill()
	<-m.exited
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Restart kills the process if it runs and starts it again on the same data.
// It does not wait until the member serves: see WaitReady.
func (m *Member) Restart() error {
	if err := m.Kill(); err != nil {
		return err
	}
	return m.start()
}

// WaitReady returns once a linearizable read went through this member.
func (m *Member) WaitReady(ctx context.Context) error {
	cli, err := NewClient(m.addr)
	if err != nil {
		return err
	}
	defer cli.Close()
	for {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := cli.Get(try, "ready")
		cancel()
		if err == nil {
			return nil
		}
		m.mu.Lock()
		running := m.runningLocked()
		m.mu.Unlock()
		if !running {
			return fmt.Errorf("cluster: %s is not running:\n%s", m.Name, m.logTail())
		}
		if perr := pause(ctx, 20*time.Millisecond); perr != nil {
			return fmt.Errorf("cluster: %s does not serve: %w", m.Name, errors.Join(perr, err))
		}
	}
}

func (m *Member) status(ctx context.Context) (*clientv3.StatusResponse, error) {
	cli, err := NewClient(m.addr)
	if err != nil {
		return nil, err
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return cli.Status(ctx, m.addr)
}

func (m *Member) logTail() string {
	b, err := os.ReadFile(m.Log())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}
