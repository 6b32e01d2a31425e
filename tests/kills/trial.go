//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// kase is one way to take etcd away.
type kase struct {
	title   string
	busy    bool
	removes bool // the key goes first: the other way round is measured
	fault   func(ctx context.Context, s *stage, links []*faultproxy.Proxy, all []*trial) error
}

const spinners = 8

var cases = []kase{
	{title: "etcd frozen for a while", fault: freeze},
	{title: "traffic swallowed", fault: swallow},
	{title: "connections refused", fault: refuse},
	{title: "traffic swallowed, on a busy machine", busy: true, fault: swallow},
	{title: "ticket removed", removes: true, fault: remove},
}

type stage struct {
	cluster     *cluster.Cluster
	binary, dir string
	names       int
}

func (k kase) run(ctx context.Context, s *stage, trials int) (result, error) {
	r := result{title: k.title, removes: k.removes}
	if k.busy {
		for range spinners {
			spin := exec.CommandContext(ctx, os.Args[0], "spin")
			if err := spin.Start(); err != nil {
				return r, err
			}
			defer spin.Wait()
			defer spin.Process.Kill()
		}
	}
	for len(r.before) < trials {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err := k.batch(ctx, s, &r, min(batch, trials-len(r.before))); err != nil {
			return r, err
		}
	}
	return r, nil
}

// trial is one lock: a command under it, and one that waits for it.
type trial struct {
	key         string // of the ticket
	first, next *exec.Cmd
	said        bytes.Buffer
	died        chan time.Time // the command
	gone        chan time.Time // its key
	began       chan time.Time // the next one's command
}

func (k kase) batch(ctx context.Context, s *stage, r *result, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := cluster.NewClient(s.cluster.Endpoints()...)
	if err != nil {
		return err
	}
	defer client.Close()
	var all []*trial
	var links []*faultproxy.Proxy
	defer func() {
		for _, l := range links {
			l.Close()
		}
		for _, t := range all {
			t.end(client)
		}
	}()
	for range n {
		link, err := faultproxy.New(s.cluster.Endpoints()[0])
		if err != nil {
			return err
		}
		links = append(links, link)
		t, err := s.start(ctx, client, link.Addr())
		if t != nil {
			all = append(all, t)
		}
		if err != nil {
			return err
		}
	}
	if err := pause(ctx, time.Duration(rand.Int64N(int64(ttl/3)))); err != nil { // any moment between two renewals
		return err
	}
	if err := k.fault(ctx, s, links, all); err != nil {
		return err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for _, t := range all {
		wg.Go(func() {
			died, gone, began, kept, err := t.judge(ctx)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = errors.Join(failed, fmt.Errorf("%w\n%s", err, t.said.String()))
			case kept:
				r.kept++
			case k.removes:
				r.before = append(r.before, died.Sub(gone))
			default:
				before := min(gone.Sub(died), began.Sub(died))
				r.before = append(r.before, before)
				if before <= 0 {
					r.outlived++
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// start starts a trial. It returns when one command runs and another one is queued behind it.
func (s *stage) start(ctx context.Context, client *clientv3.Client, endpoint string) (*trial, error) {
	s.names++
	name := fmt.Sprintf("/kills/%d", s.names)
	t := &trial{}
	one, two := filepath.Join(s.dir, fmt.Sprintf("first-%d", s.names)), filepath.Join(s.dir, fmt.Sprintf("next-%d", s.names))
	alive, died, err := pipe(one)
	if err != nil {
		return nil, err
	}
	_, began, err := pipe(two)
	if err != nil {
		return nil, err
	}
	t.died, t.began, t.gone = died, began, make(chan time.Time, 1)
	args := []string{"--", os.Args[0], "command", one}
	if s.names%2 == 0 {
		args = []string{"-c", "trap '' TERM; " + os.Args[0] + " command " + one + " & wait"}
	}
	t.first = exec.CommandContext(ctx, s.binary, append([]string{
		"run", "--endpoints", endpoint, "--ttl", ttl.String(), "--kill-after", killAfter.String(), name,
	}, args...)...)
	t.first.Stderr = &t.said
	if err := t.first.Start(); err != nil {
		return nil, err
	}
	select {
	case <-alive:
	case <-ctx.Done():
		return t, fmt.Errorf("the command did not start: %w\n%s", ctx.Err(), t.said.String())
	}
	t.next = exec.CommandContext(ctx, s.binary, "run", "--endpoints", s.cluster.Endpoints()[0], "--ttl", "60s", name, "--", os.Args[0], "next", two)
	if err := t.next.Start(); err != nil {
		return t, err
	}
	for {
		resp, err := client.Get(ctx, name+"/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		if err != nil {
			return t, err
		}
		if len(resp.Kvs) == 2 {
			t.key = string(resp.Kvs[0].Key)
			watch := client.Watch(ctx, t.key, clientv3.WithRev(resp.Header.Revision+1))
			go func() {
				for range watch {
					t.gone <- time.Now()
					return
				}
			}()
			return t, nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return t, err
		}
	}
}

// judge waits until the trial has ended: the command lives on with its lock, or is dead and the key gone.
func (t *trial) judge(ctx context.Context) (died, gone, began time.Time, kept bool, err error) {
	lives := time.NewTimer(2 * ttl)
	defer lives.Stop()
	for died.IsZero() || gone.IsZero() || began.IsZero() {
		select {
		case died = <-t.died:
		case gone = <-t.gone:
		case began = <-t.began:
		case <-lives.C:
			if died.IsZero() && gone.IsZero() {
				return died, gone, began, true, nil
			}
		case <-ctx.Done():
			return died, gone, began, false, fmt.Errorf("died %v, key gone %v, next began %v: %w", died, gone, began, ctx.Err())
		}
	}
	return died, gone, began, false, nil
}

// end ends what still runs: without its ticket etcdlock kills its command, and all of the group.
func (t *trial) end(client *clientv3.Client) {
	if t.key != "" {
		ctx, cancel := context.WithTimeout(context.Background(), ttl)
		_, _ = client.Delete(ctx, t.key)
		cancel()
		timer := time.AfterFunc(2*ttl, func() { _ = t.first.Process.Kill() })
		_ = t.first.Wait()
		timer.Stop()
	}
	for _, cmd := range []*exec.Cmd{t.next, t.first} {
		if cmd != nil && cmd.Process != nil {
			_ = cmd.Process.Kill() // the kernel kills the command with it, or it ends with its pipe
			_ = cmd.Wait()
		}
	}
}

// pipe makes a named pipe. The first line that is written to it, a time, comes by said; the moment at which nobody has it
// open for writing any more, by closed. For a command that says when it began, closed is that moment.
func pipe(path string) (said chan struct{}, closed chan time.Time, err error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, nil, err
	}
	said, closed = make(chan struct{}), make(chan time.Time, 1)
	go func() {
		f, err := os.Open(path) // waits for the writer
		if err != nil {
			return
		}
		defer f.Close()
		in := bufio.NewReader(f)
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		close(said)
		if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil && n > 0 {
			closed <- time.Unix(0, n)
			return
		}
		_, _ = in.ReadByte() // ends when the last writer is gone
		closed <- time.Now()
	}()
	return said, closed, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
