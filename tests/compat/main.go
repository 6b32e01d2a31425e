// Command compat runs a short suite of everything that etcdlock does against real etcd servers of each supported
// series, one after another, and prints one table. It needs the go command and, for etcd 3.4, Debian's apt-get and
// dpkg; anything that is missing is a failure, not a server left out. Run it inside this module, as here:
//
//	go run -C tests ./compat [-only 3.6]
//
// Nothing is installed, and nothing is left behind: servers are built, unpacked and run in a temporary directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// limit bounds the whole run, builds included.
const limit = 10 * time.Minute

func main() {
	only := flag.String("only", "", "a single series to run, such as 3.6")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, *only)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

// outcome is what one check said of one server.
type outcome struct {
	note string
	err  error
}

// column is one server's part of the table.
type column struct {
	version  string
	outcomes map[string]outcome
	took     time.Duration
	err      error // why it could not be run at all
}

func run(ctx context.Context, only string) error {
	dir, err := os.MkdirTemp("", "etcdlock-compat-")
	if err != nil {
		return err
	}
	var columns []*column
	for _, s := range servers {
		if only != "" && s.series != only {
			continue
		}
		start := time.Now()
		c := test(ctx, s, dir)
		c.took = time.Since(start)
		columns = append(columns, c)
	}
	// Before the table: whoever reads only its head ends this process early.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if len(columns) == 0 {
		return fmt.Errorf("no server of the series %q", only)
	}
	fmt.Println()
	return table(columns)
}

// test gets one server, starts it and runs all checks.
func test(ctx context.Context, s server, dir string) *column {
	c := &column{version: s.series, outcomes: map[string]outcome{}}
	fmt.Printf("etcd %s: %s\n", s.series, s.origin)
	binary, err := s.get(ctx, dir)
	if err != nil {
		c.err = err
		return c
	}
	if c.version, err = versionOf(ctx, binary); err != nil {
		c.err = err
		return c
	}
	if !strings.HasPrefix(c.version, s.series+".") {
		c.err = fmt.Errorf("%s gave etcd %s", s.origin, c.version)
		return c
	}
	fmt.Printf("etcd %s: runs\n", c.version)
	// The least cost of a login: each renewal under auth makes one, and on a busy machine that alone can outlast a
	// short TTL, which is no matter of versions.
	cl, err := cluster.Start(ctx, cluster.Options{Binary: binary, Dir: dir, Args: []string{"--bcrypt-cost", "4"}})
	if err != nil {
		c.err = err
		return c
	}
	e, err := newEnv(cl)
	if err != nil {
		c.err = errors.Join(err, cl.Close())
		return c
	}
	c.outcomes = e.checkAll(ctx)
	c.err = errors.Join(e.client.Close(), cl.Close())
	return c
}

// table prints what was found and fails if anything did.
func table(columns []*column) error {
	failed := 0
	row := func(name string, cell func(*column) string) {
		fmt.Printf("%-12s", name)
		for _, c := range columns {
			fmt.Printf("  %-18s", cell(c))
		}
		fmt.Println()
	}
	row("", func(c *column) string { return "etcd " + c.version })
	for _, ch := range checks {
		row(ch.name, func(c *column) string {
			o, ran := c.outcomes[ch.name]
			switch {
			case !ran:
				failed++
				return "NOT RUN"
			case o.err != nil:
				failed++
				return "FAILED"
			}
			return strings.TrimSpace("ok " + o.note)
		})
	}
	row("took", func(c *column) string { return c.took.Round(100 * time.Millisecond).String() })
	fmt.Println()
	for _, ch := range checks {
		fmt.Printf("%-12s%s\n", ch.name, ch.what)
	}
	for _, c := range columns {
		if c.err != nil {
			failed++
			fmt.Printf("\netcd %s: %v\n", c.version, c.err)
		}
		for _, ch := range checks {
			if err := c.outcomes[ch.name].err; err != nil {
				fmt.Printf("\netcd %s, %s: %v\n", c.version, ch.name, err)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d failed", failed)
	}
	return nil
}
