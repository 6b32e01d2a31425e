//go:build unix

package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// child is a client process of its own: it takes locks, says so, asks each of
// them every millisecond whether it still holds, and tells, for each, the last
// moment at which it asked and was told yes. Of lingering locks, every other one
// is released after each yes and taken up again before the next question. With
// -stay it ends each hold so that its lock stays taken, and tells when. It ends with
// its standard input.
func child(args []string) int {
	fs := flag.NewFlagSet("child", flag.ExitOnError)
	endpoint := fs.String("endpoint", "", "")
	which := fs.String("impl", "", "")
	prefix := fs.String("prefix", "", "")
	n := fs.Int("n", 1, "")
	stay := fs.Duration("stay", 0, "")
	_ = fs.Parse(args)
	var i impl
	for _, side := range sides {
		if side.Name() == *which {
			i = side.impl
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent is done, or gone
		cancel()
	}()
	act := hold
	if *stay > 0 {
		act = keep(*stay)
	}
	if err := act(ctx, i, *endpoint, *prefix, *n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-ctx.Done()
	return 0
}

func hold(ctx context.Context, i impl, endpoint, prefix string, n int) error {
	cli, err := cluster.NewClient(endpoint)
	if err != nil {
		return err
	}
	s, err := i.Open(ctx, cli, knowsTTL)
	if err != nil {
		return err
	}
	locks, yes, idle := make([]lock, n), make([]time.Time, n), make([]bool, n)
	for j := range locks {
		locks[j] = s.Mutex(fmt.Sprintf("%s-%d", prefix, j))
		if err := take(ctx, locks[j], i.Linger()); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	for left := n; left > 0; {
		for j, l := range locks {
			if l == nil {
				continue
			}
			if idle[j] {
				// Once another has it, this fails, and l is not held.
				idle[j] = within(ctx, 100*time.Millisecond, l.Acquire) != nil
			}
			asked := time.Now() // before the question: a stop in between counts for it
			if l.Held() {
				yes[j] = asked
				idle[j] = i.Linger() > 0 && j%2 == 1 && within(ctx, time.Second, l.Release) == nil
				continue
			}
			fmt.Println(j, yes[j].UnixNano())
			locks[j] = nil
			left--
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// within makes a call with a time limit.
func within(ctx context.Context, d time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return call(ctx)
}

type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (e *env) child(ctx context.Context, i impl, prefix string, n int, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"child", "-endpoint", e.Members[0].Addr(), "-impl", i.Name(),
		"-prefix", prefix, "-n", fmt.Sprint(n)}, args...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	if line, err := p.out.ReadString('\n'); line != "ready\n" {
		p.end()
		return nil, fmt.Errorf("child said %q: %w", line, err)
	}
	return p, nil
}

// end kills, since a stopped process does not read its input.
func (p *process) end() {
	_ = p.cmd.Process.Kill()
	p.in.Close()
	_ = p.cmd.Wait()
}

func (e *env) stopped(ctx context.Context, s *suite, i impl) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	trials := s.pick(150, 20)
	procs := min(10, trials)
	per := trials / procs
	prefix := e.prefix("stopped")
	next := make([][]time.Time, procs)
	var mu sync.Mutex
	violations, asked := 0, 0
	var overlap time.Duration
	b, err := e.node(ctx, i, time.Minute)
	if err != nil {
		return err
	}
	defer b.close()
	err = parallel(procs, procs, func(j int) error {
		mine := fmt.Sprintf("%s/%d", prefix, j)
		p, err := e.child(ctx, i, mine, per)
		if err != nil {
			return err
		}
		defer p.end()
		if err := pause(ctx, time.Duration(j)*knowsTTL/3/time.Duration(procs)); err != nil {
			return err
		}
		if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		next[j] = make([]time.Time, per)
		if err := parallel(per, per, func(q int) error {
			err := b.Rival(fmt.Sprintf("%s-%d", mine, q)).Acquire(ctx)
			next[j][q] = time.Now()
			return err
		}); err != nil {
			return err
		}
		if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			return err
		}
		for range per {
			var q int
			var nanos int64
			line, err := p.out.ReadString('\n')
			if err != nil {
				return err
			}
			if _, err := fmt.Sscan(line, &q, &nanos); err != nil {
				return err
			}
			mu.Lock()
			asked++
			if d := time.Unix(0, nanos).Sub(next[j][q]); d > 0 {
				violations++
				overlap = max(overlap, d)
			}
			mu.Unlock()
		}
		return nil
	})
	if err != nil {
		return err
	}
	figure := "the first question after waking said: lost"
	if violations > 0 {
		figure = "after waking it said that it held for up to " + ms(overlap) + " more"
	}
	s.add(row{name: stoppedCase, impl: i.Name(), trials: asked, violations: violations, figure: figure})
	return nil
}
