// Command bench measures etcdlock beside etcd's own concurrency package and
// beside the floor, what bare requests cost, on real etcd server processes
// that it builds and starts by itself. All three are interleaved in one run.
//
//	go run -C tests ./bench               the whole table, some twenty minutes
//	go run -C tests ./bench -short        one member only, fewer repetitions
//	go run -C tests ./bench -run handoff  one row (see -list)
//	go run -C tests ./bench -out docs     also write the table and the chart there
//
// Relative paths begin at the root of the repository. A run that did not come to
// its end writes nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

type config struct {
	short   bool
	run     string
	out     string
	members int
	profile string
	verbose bool
	limit   time.Duration
}

func main() {
	var c config
	flag.BoolVar(&c.short, "short", false, "one member, idle, fewer repetitions")
	flag.StringVar(&c.run, "run", "", "only the row of this name")
	flag.StringVar(&c.out, "out", "", "directory for performance-table.md and performance.svg; a relative one begins at the root of the repository")
	flag.IntVar(&c.members, "members", 0, "only on this many members, 1 or 3")
	flag.StringVar(&c.profile, "cpuprofile", "", "write a CPU profile here; a relative path begins at the root of the repository")
	flag.BoolVar(&c.verbose, "v", false, "show the requests of some rows by kind")
	flag.DurationVar(&c.limit, "limit", 30*time.Minute, "end the run then; nothing is written")
	list := flag.Bool("list", false, "name the rows")
	holdLib := flag.String("hold", "", "internal: the process that the takeover row kills")
	holdName := flag.String("hold-name", "", "internal")
	holdCount := flag.Int("hold-count", 1, "internal")
	endpoints := flag.String("endpoints", "", "internal")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *list:
		for _, r := range rows {
			fmt.Println(r.name)
		}
	case *holdLib != "":
		err = hold(ctx, *holdLib, strings.Split(*endpoints, ","), *holdName, *holdCount)
	default:
		err = bench(ctx, c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, c config) (err error) {
	if c.out, err = repo.Path(c.out); err != nil {
		return err
	}
	if c.profile, err = repo.Path(c.profile); err != nil {
		return err
	}
	if c.profile != "" {
		f, err := os.Create(c.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := &report{out: os.Stdout, args: strings.Join(os.Args[1:], " ")}
	lctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	start, load := time.Now(), loadAverage()
	for _, members := range []int{1, 3} {
		if (c.members != 0 && c.members != members) || (c.short && members > 1 && c.members == 0) {
			continue
		}
		if err := onCluster(lctx, c, r, members); err != nil {
			if ctx.Err() != nil || lctx.Err() == nil {
				return err
			}
			r.fail("the rest", fmt.Sprintf("%d members", members), errors.New("not reached within the time limit"))
			break
		}
	}
	r.took, r.load = time.Since(start), load+" and "+loadAverage()
	fmt.Printf("took %s\n", r.took.Round(time.Second))
	return publish(r, c.out)
}

// publish writes the table and the chart, if a directory is named for them, of a run in which every row came to its end.
func publish(r *report, dir string) error {
	var err error
	switch {
	case len(r.failed) > 0:
		err = fmt.Errorf("%d rows failed:\n%s", len(r.failed), strings.Join(r.failed, "\n"))
	case len(r.results) == 0:
		err = errors.New("nothing was measured: see -list for the rows")
	}
	if dir == "" {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w\nthe run did not come to its end: %s is left as it was", err, dir)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "performance-table.md"), []byte(r.markdown()), 0o644),
		os.WriteFile(filepath.Join(dir, "performance.svg"), []byte(r.chart()), 0o644),
	)
}

func onCluster(ctx context.Context, c config, r *report, members int) error {
	e := &env{members: members, short: c.short, verbose: c.verbose}
	defer e.close()
	if err := startServers(ctx, e); err != nil {
		return err
	}
	for _, busy := range []bool{false, true} {
		if busy && c.short {
			break
		}
		e.busy = busy
		stop := func() {}
		if busy {
			var err error
			if stop, err = startWrites(ctx, e); err != nil {
				return err
			}
		}
		for _, row := range rows {
			if (c.run != "" && c.run != row.name) || !row.where(e) {
				continue
			}
			// A row that hangs must not take the others with it.
			rctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
			if err := row.run(rctx, e, r); err != nil {
				r.fail(row.name, e.where(), err)
			}
			cancel()
			if ctx.Err() != nil {
				stop()
				return ctx.Err()
			}
		}
		stop()
	}
	return nil
}
