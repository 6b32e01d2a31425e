//go:build unix

// Kills measures what etcdlock run promises: that the command under a lock is dead before etcd can give the lock to
// anybody else. It runs the program and a real etcd server as processes, takes etcd away from the program, and compares
// two moments: when the last process of the command was gone, and when the key of the lock was.
//
//	go run -C tests ./kills                  every case, 50 trials each
//	go run -C tests ./kills -trials 10       fewer
//	go run -C tests ./kills -case frozen     only cases whose name contains this
//	go run -C tests ./kills -out FILE        writes the table as Markdown; a relative path begins at the root of the
//	                                         repository
//
// The commands do not obey SIGTERM: they have to be killed. The exit code is 1 if a command outlived its key, or a case
// could not run. A run that did not come to its end writes no file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

const (
	ttl       = 5 * time.Second
	killAfter = time.Second
	batch     = 10 // trials at the same time
)

// result is what a case has shown.
type result struct {
	title    string
	removes  bool
	before   []time.Duration // from the death of the command to the end of its key; where that is removed, the other way round
	kept     int             // trials in which etcd was back in time, and the command lived on
	outlived int
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "command":
			command(os.Args[2])
		case "next":
			next(os.Args[2])
		case "spin":
			for n := 0; ; n++ {
			}
		}
	}
	os.Exit(run())
}

func run() int {
	trials := flag.Int("trials", 50, "trials per case")
	only := flag.String("case", "", "only cases whose name contains this")
	out := flag.String("out", "", "file for the table; a relative path begins at the root of the repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *trials, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, "kills:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, trials int, only, out string) error {
	page, err := repo.Path(out)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "etcdlock-kills-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "etcdlock")
	root, err := repo.Root()
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/etcdlock")
	build.Dir = root
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, said)
	}
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer c.Close()

	began, load := time.Now(), loadAverage()
	s := &stage{cluster: c, binary: binary, dir: dir}
	var results []result
	for _, k := range cases {
		if !strings.Contains(k.title, only) {
			continue
		}
		r, err := k.run(ctx, s, trials)
		if err != nil {
			return fmt.Errorf("%s: %w", k.title, err)
		}
		fmt.Println(row(r))
		results = append(results, r)
	}
	if len(results) == 0 {
		return errors.New("nothing was tried")
	}
	var failed []error
	for _, r := range results {
		if r.outlived > 0 {
			failed = append(failed, fmt.Errorf("%s: %d commands outlived their keys", r.title, r.outlived))
		}
	}
	if page != "" {
		failed = append(failed, os.WriteFile(page, []byte(document(results, trials, time.Since(began), load)), 0o644))
	}
	return errors.Join(failed...)
}

func row(r result) string {
	slices.Sort(r.before)
	at := func(part float64) string {
		if len(r.before) == 0 {
			return "-"
		}
		return fmt.Sprint(r.before[int(part*float64(len(r.before)-1))].Round(time.Millisecond))
	}
	if r.removes {
		return fmt.Sprintf("| %s | %d | %s | %s | %s |", r.title, len(r.before), at(0), at(0.5), at(1))
	}
	return fmt.Sprintf("| %s | %d of %d | %d | %s | %s | %s |", r.title, r.outlived, len(r.before), r.kept, at(0), at(0.5), at(1))
}

func document(results []result, trials int, took time.Duration, load string) string {
	var rows, removed strings.Builder
	for _, r := range results {
		to := &rows
		if r.removes {
			to = &removed
		}
		to.WriteString(row(r) + "\n")
	}
	return fmt.Sprintf(`# Killed in time

Written by `+"`go run -C tests ./kills -trials %d -out docs/kills.md`"+`, in %s, on %d CPUs, %s/%s, with a load of %s at its
beginning. One etcd %s server process; `+"`etcdlock run --ttl %v --kill-after %v`"+`, %d at the same time, each with another
one that waits for its lock. The commands do not obey SIGTERM. Half of them are a process, half a shell with a child.

| what happens | outlived its key | etcd back in time | dead before the key's end: least | median | most |
|---|---:|---:|---:|---:|---:|
%s
| what happens | trials | dead after the key's end: least | median | most |
|---|---:|---:|---:|---:|
%s
- **Dead before the key's end**: from the moment at which the last process of the command was gone to the one at which a watch
  told that the key of the lock was deleted. Both moments are seen by the measuring process, so both may be seen a little late.
- **Outlived its key**: the command was seen dead after that, or the next holder's command began before. TTL/20, %v here, is what
  etcdlock leaves by its own clock between the kill and the first moment at which etcd could give the lock away. etcd then takes up
  to half a second more.
- **Etcd back in time**: the command lived on, with its lock.
- **Frozen**: etcd is stopped (SIGSTOP), and goes on after a random time of half to one and a half TTLs; the key cannot end
  before. **Swallowed**: the connection stays up and carries nothing. **Refused**: it is closed, and new ones are. **Busy**: with %d processes beside that do
  nothing but spin.
- **Removed**: an operator deletes the ticket, and the next one in the queue holds at once. No clock can foresee that; the command is
  killed as soon as the news is here. Only the fencing token protects in between.
`, trials, took.Round(time.Second), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, load, repo.EtcdVersion(), ttl, killAfter, batch,
		rows.String(), removed.String(), ttl/20, spinners)
}

// loadAverage is the machine's of the last minute, where it can be read.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(data), " ")
	return one
}
