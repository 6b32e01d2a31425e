//go:build unix

// Command sidebyside runs old and new binaries of one program side by side: a program that uses etcd's concurrency package
// (worker), as it is, and with one import line changed to the package of this repository. They are started, killed, frozen,
// ended and replaced in turn, under faults of the network and of members: first all are old, then a rolling upgrade, then all
// kinds at once, then a rolling downgrade. Run it inside this module:
//
//	go run -C tests ./sidebyside [-duration 3m] [-seed N]
//
// What is checked: every write that a worker made under the guard of its hold was made while its ticket was the first in the
// queue, so no two tickets held; both kinds held in every phase that has them; and when all have ended, nothing is left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

const (
	workers = 6
	phases  = 4
)

func main() {
	duration := flag.Duration("duration", 3*time.Minute, "how long, without the builds")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *duration, *seed)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

// fleet is what a run has.
type fleet struct {
	clus    *cluster.Cluster
	links   []*faultproxy.Proxy
	client  *clientv3.Client // past the links
	random  *rand.Rand
	bins    map[string]string // by kind
	lives   int
	workers [workers]*process
}

type process struct {
	kind string
	cmd  *exec.Cmd
}

func run(ctx context.Context, duration time.Duration, seed uint64) (err error) {
	dir, err := os.MkdirTemp("", "etcdlock-sidebyside-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f := &fleet{random: rand.New(rand.NewPCG(seed, 0))}
	if f.bins, err = buildBoth(ctx, dir); err != nil {
		return err
	}
	if f.clus, err = cluster.Start(ctx, cluster.Options{Members: 3, Dir: dir}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.clus.Close()) }()
	for _, at := range f.clus.Endpoints() {
		link, err := faultproxy.New(at)
		if err != nil {
			return err
		}
		defer link.Close()
		f.links = append(f.links, link)
	}
	if f.client, err = cluster.NewClient(f.clus.Endpoints()...); err != nil {
		return err
	}
	defer f.client.Close()
	defer f.killAll()
	j := newJudge(f.client)
	fmt.Printf("seed %d\n", seed)
	for n := range phases {
		if err := f.phase(ctx, n, duration/phases); err != nil {
			return err
		}
		if err := j.upTo(ctx, phaseNames[n], kindsOf[n]); err != nil {
			return err
		}
	}
	f.heal()
	for i := range f.workers {
		if err := f.end(i); err != nil {
			return err
		}
	}
	if err := j.upTo(ctx, "the end", nil); err != nil {
		return err
	}
	return j.nothingLeft(ctx)
}

var (
	phaseNames = [phases]string{"all old", "rolling upgrade", "any of both", "rolling downgrade"}
	kindsOf    = [phases][]string{{"old"}, {"old", "new"}, {"old", "new"}, {"new", "old"}}
)

// phase has faults and replacements follow one another. Each worker is replaced at least once in a rolling one.
func (f *fleet) phase(ctx context.Context, n int, d time.Duration) error {
	end := time.Now().Add(d)
	step := d / (workers + 2)
	for i := range f.workers {
		kind := map[int]string{0: "old", 1: "new", 2: []string{"old", "new"}[f.random.IntN(2)], 3: "old"}[n]
		if n == 2 && i < 2 {
			kind = []string{"old", "new"}[i] // one of each at least
		}
		if n > 0 {
			if err := f.trouble(ctx, step); err != nil {
				return err
			}
			if err := f.replaceable(i); err != nil {
				return err
			}
		}
		if err := f.start(i, kind); err != nil {
			return err
		}
	}
	for time.Now().Before(end) {
		if err := f.trouble(ctx, step); err != nil {
			return err
		}
		i := f.random.IntN(workers)
		if err := f.replaceable(i); err != nil {
			return err
		}
		if err := f.start(i, f.workers[i].kind); err != nil {
			return err
		}
	}
	return nil
}

// trouble is one fault, and the time that it lasts, and as much time without.
func (f *fleet) trouble(ctx context.Context, d time.Duration) error {
	link := f.links[f.random.IntN(len(f.links))]
	member := f.clus.Members[f.random.IntN(len(f.clus.Members))]
	var worker *process
	if p := f.workers[f.random.IntN(workers)]; p != nil {
		worker = p
	}
	var err error
	undo := func() error { return nil }
	switch f.random.IntN(6) {
	case 0:
		link.Cut()
		undo = func() error { link.Resume(); return nil }
	case 1:
		link.Hold(faultproxy.ToClient)
		undo = func() error { link.Resume(); return nil }
	case 2:
		link.Delay(faultproxy.Both, 300*time.Millisecond)
		undo = func() error { link.Resume(); return nil }
	case 3:
		err, undo = member.Stop(), member.Cont
	case 4:
		link.Drop()
	case 5:
		if worker != nil {
			err = worker.cmd.Process.Signal(syscall.SIGSTOP)
			undo = func() error { return worker.cmd.Process.Signal(syscall.SIGCONT) }
		}
	}
	err = errors.Join(err, pause(ctx, d/2))
	return errors.Join(err, undo(), pause(ctx, d/2))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fleet) heal() {
	for _, l := range f.links {
		l.Resume()
	}
}

func (f *fleet) start(i int, kind string) error {
	f.lives++
	var endpoints string
	for n := range f.links {
		endpoints += "," + f.links[(n+i)%len(f.links)].Addr()
	}
	cmd := exec.Command(f.bins[kind], fmt.Sprintf("%s-%d", kind, f.lives), endpoints[1:])
	cmd.Stderr = os.Stderr
	f.workers[i] = &process{kind, cmd}
	return cmd.Start()
}

// replaceable ends a worker: it is killed, or asked to end.
func (f *fleet) replaceable(i int) error {
	if f.random.IntN(2) == 0 {
		return f.end(i)
	}
	p := f.workers[i]
	_ = p.cmd.Process.Kill() // it runs
	_ = p.cmd.Wait()         // it was killed
	return nil
}

// end asks a worker to end, and waits for it. One that does not is a failure: it is stuck.
func (f *fleet) end(i int) error {
	cmd := f.workers[i].cmd
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	defer stuck.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", cmd.Args[1], err)
	}
	return nil
}

func (f *fleet) killAll() {
	for _, p := range f.workers {
		if p != nil && p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	}
}

// buildBoth builds the worker as it is, and with one line changed.
func buildBoth(ctx context.Context, dir string) (map[string]string, error) {
	const source = "sidebyside/worker/main.go"
	changed, err := changeLine(dir, source)
	if err != nil {
		return nil, err
	}
	bins := map[string]string{}
	for kind, flags := range map[string][]string{"old": nil, "new": {"-overlay", changed}} {
		bins[kind] = filepath.Join(dir, kind)
		args := append(append([]string{"build"}, flags...), "-o", bins[kind], "./sidebyside/worker")
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("the %s worker: %w\n%s", kind, err, out)
		}
	}
	return bins, nil
}
