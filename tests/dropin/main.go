// Command dropin puts the package concurrency of this repository under etcd's own tests: those of the concurrency package, of
// the recipes, and of the elections and locks among the integration tests. It takes etcd's sources from the module cache,
// changes one import line in a copy of them (of the tests, of the client's recipes and leasing, and of the v3lock and
// v3election services of the server), and runs what is there. Run it inside this module:
//
//	go run -C tests ./dropin [-theirs]
//
// Two tests must fail, and do so for the reason that is told below: they want two values of one session to hold the same
// lock, which is what lets two goroutines in. Anything else that is red makes the command fail. -theirs leaves the import
// line as it is: a control of the command itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

// limit bounds the whole run, builds included.
const limit = 10 * time.Minute

func main() {
	theirs := flag.Bool("theirs", false, "run etcd's own package, as a control")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, *theirs)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "dropin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, theirs bool) error {
	root, err := repo.Root()
	if err != nil {
		return err
	}
	dir, err := workplace(root)
	if err != nil {
		return err
	}
	start := time.Now()
	version, err := etcdVersion(ctx)
	if err != nil {
		return err
	}
	files, err := prepare(ctx, dir, root, version, theirs)
	if err != nil {
		return err
	}
	fmt.Printf("etcd %s, import line changed in %d files, in %s\n", version, files, dir)
	var results []result
	for _, s := range suites {
		bin := filepath.Join(dir, filepath.Base(s.pkg)+".test")
		if err := build(ctx, dir, s.pkg, bin); err != nil {
			return err
		}
		fmt.Printf("%s built after %.0f s\n", s.pkg, time.Since(start).Seconds())
		all, err := s.run(ctx, dir, bin)
		if err != nil {
			return err
		}
		results = append(results, all...)
	}
	return judge(results, theirs, time.Since(start))
}

// judge prints what came of each test, and is an error if that is not what must be.
func judge(results []result, theirs bool, took time.Duration) error {
	counted, passed, wrong := 0, 0, 0
	for _, r := range results {
		want, why := pass, ""
		if reason, ok := told[r.name]; ok && !theirs {
			want, why = waiting, ": "+reason
		}
		verdict := "as it must"
		if r.outcome != want {
			verdict = "WRONG"
			wrong++
		}
		if r.counted {
			counted++
			if r.outcome == pass {
				passed++
			}
		}
		fmt.Printf("%-6s %-50s %5.1f s  %s%s\n", r.outcome, r.name, r.took.Seconds(), verdict, why)
		if r.outcome != want {
			fmt.Println(r.output)
		}
	}
	fmt.Printf("%d of %d that name a session, a mutex, an election or a lock passed; %d tests in all, %.0f s\n",
		passed, counted, len(results), took.Seconds())
	if !theirs {
		fmt.Printf("%d must fail: they want two values of one session to hold the same lock\n", len(told))
	}
	if wrong > 0 {
		return fmt.Errorf("%d tests ended otherwise than they must", wrong)
	}
	if counted != named {
		return fmt.Errorf("%d tests with such names were found, %d are known: look at suites", counted, named)
	}
	return nil
}

// workplace is a directory that is the same for every run on one tree, so that Go's build cache knows it again.
func workplace(root string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "etcdlock-dropin", fmt.Sprintf("%x", hash(root)))
	return dir, errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
}
