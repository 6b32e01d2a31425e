//go:build unix

// Command users runs the tests of public programs that use etcd's concurrency package: as they are, and with the import line
// changed to the package of this repository. It prints a table, and fails where a test that passed before does not any more.
// Run it inside this module:
//
//	go run -C tests ./users [-only NAME]
//
// It needs git, GitHub and the Go module proxy, and the ports 2379 and 4001 of this machine, where those tests look for etcd.
// Where GitHub cannot be reached, git's url.<base>.insteadOf leads it to a mirror.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

// program is one of them. Either git and commit are given, or version, for one from the module proxy.
type program struct {
	name     string
	path     string // on GitHub, or of the module
	at       string // commit or version
	module   bool
	packages []string // below which directory, if it is a module of its own
	dirs     []string // modules, "" for the root
}

var programs = []program{
	{name: "gocron-etcd-elector", path: "go-co-op/gocron-etcd-elector", at: "c7a1e45db8fa8be5931085ae855b9d292bec7110",
		packages: []string{"./..."}, dirs: []string{"", "tests"}},
	{name: "kvtools/etcdv3", path: "kvtools/etcdv3", at: "0919b986a4582f3d00d30643220bd6cbaf247c7b",
		packages: []string{"./..."}, dirs: []string{""}},
	{name: "trillian", path: "github.com/google/trillian", at: "v1.8.0", module: true,
		packages: []string{"./util/election2/etcd", "./quota/etcd/..."}, dirs: []string{""}},
}

func main() {
	only := flag.String("only", "", "one of the programs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "users:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) (err error) {
	dir, err := os.MkdirTemp("", "etcdlock-users-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := repo.Root()
	if err != nil {
		return err
	}
	etcd, err := serve(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = etcd.Process.Kill(); _ = etcd.Wait() }()
	fmt.Printf("| program | at | import lines changed | passed before | passed after |\n|---|---|---|---|---|\n")
	for _, p := range programs {
		if only == "" || only == p.name {
			err = errors.Join(err, p.run(ctx, filepath.Join(dir, filepath.Base(p.path)), root))
		}
	}
	return err
}

// serve starts an etcd where the tests expect it.
func serve(ctx context.Context, dir string) (*exec.Cmd, error) {
	bin, err := cluster.Build(ctx)
	if err != nil {
		return nil, err
	}
	const clients = "http://127.0.0.1:2379,http://127.0.0.1:4001"
	cmd := exec.Command(bin, "--data-dir", filepath.Join(dir, "etcd"), "--log-level", "error", "--listen-client-urls", clients,
		"--advertise-client-urls", clients, "--listen-peer-urls", "http://127.0.0.1:0")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	client, err := cluster.NewClient("127.0.0.1:2379", "127.0.0.1:4001")
	if err == nil {
		ready, cancel := context.WithTimeout(ctx, time.Minute)
		_, err = client.Get(ready, "ready")
		cancel()
		err = errors.Join(err, client.Close())
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return cmd, err
}

// run runs its tests before and after.
func (p program) run(ctx context.Context, dir, root string) error {
	if err := p.fetch(ctx, dir); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	before, err := p.test(ctx, dir)
	if err != nil {
		return fmt.Errorf("%s, before: %w", p.name, err)
	}
	lines, err := change(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	for _, sub := range p.dirs {
		if _, err := tool(ctx, filepath.Join(dir, sub), "go", "mod", "edit", "-replace", "github.com/etcdlock/etcdlock="+root,
			"-require", "github.com/etcdlock/etcdlock@v0.0.0"); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	after, err := p.test(ctx, dir)
	if err != nil {
		return fmt.Errorf("%s, after: %w", p.name, err)
	}
	at := p.at
	if !p.module {
		at = at[:12]
	}
	fmt.Printf("| %s | %s | %d | %d of %d | %d of %d |\n", p.name, at, lines, count(before), len(before), count(after), len(after))
	var worse []string
	for test, passed := range before {
		if passed && !after[test] {
			worse = append(worse, test)
		}
	}
	if len(worse) > 0 {
		return fmt.Errorf("%s: passed before, and does not any more: %s", p.name, strings.Join(worse, ", "))
	}
	if count(after) == 0 {
		return fmt.Errorf("%s: no test passed", p.name)
	}
	return nil
}

func count(results map[string]bool) (passed int) {
	for _, ok := range results {
		if ok {
			passed++
		}
	}
	return passed
}

// fetch gets the sources, of that very commit or version.
func (p program) fetch(ctx context.Context, dir string) error {
	if !p.module {
		for _, args := range [][]string{
			{"init", "-q", dir},
			{"-C", dir, "fetch", "-q", "--depth", "1", "https://github.com/" + p.path, p.at},
			{"-C", dir, "checkout", "-q", "FETCH_HEAD"},
		} {
			if _, err := tool(ctx, ".", "git", args...); err != nil {
				return err
			}
		}
		return nil
	}
	out, err := tool(ctx, ".", "go", "mod", "download", "-json", p.path+"@"+p.at)
	var m struct{ Dir string }
	if err = errors.Join(err, json.Unmarshal(out, &m)); err != nil {
		return err
	}
	return errors.Join(os.CopyFS(dir, os.DirFS(m.Dir)), writable(dir))
}

// writable undoes that the module cache is not.
func writable(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if d.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// change changes the import line wherever it is.
func change(dir string) (lines int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		const was, is = `"go.etcd.io/etcd/client/v3/concurrency"`, `"github.com/etcdlock/etcdlock/concurrency"`
		n := bytes.Count(text, []byte(was))
		if lines += n; n == 0 {
			return nil
		}
		return os.WriteFile(path, bytes.ReplaceAll(text, []byte(was), []byte(is)), 0o644)
	})
	if err == nil && lines == 0 {
		err = errors.New("it does not import the package")
	}
	return lines, err
}

// test runs the tests, and tells of each whether it passed.
func (p program) test(ctx context.Context, dir string) (map[string]bool, error) {
	results := map[string]bool{}
	for _, sub := range p.dirs {
		args := append([]string{"test", "-mod=mod", "-json", "-count=1", "-p=1", "-timeout=5m"}, p.packages...)
		out, err := tool(ctx, filepath.Join(dir, sub), "go", args...)
		seen := 0
		for line := range bytes.Lines(out) {
			var ev struct{ Action, Package, Test, Output string }
			if json.Unmarshal(line, &ev) != nil || ev.Test == "" || ev.Action != "pass" && ev.Action != "fail" {
				continue
			}
			seen++
			results[ev.Package+"."+ev.Test] = ev.Action == "pass"
		}
		if err != nil && seen == 0 {
			return nil, err
		}
	}
	return results, nil
}

func tool(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, err
}
