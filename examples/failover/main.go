// Command failover shows what a leader election is for, in under a minute and
// with real processes: three of them campaign for one key, and the one that
// leads is killed, steps down, and is frozen past its TTL, one after the other.
//
//	go run ./examples/failover
//
// It starts an etcd by itself, in a temporary directory and on a free port of
// the loopback interface. With -endpoints it uses a cluster that is there:
//
//	go run ./examples/failover -endpoints 10.0.0.1:2379,10.0.0.2:2379
//
// The exit code is 0 when what was shown is what the library promises (no two
// nodes led at once, tokens grew, the frozen one knew on waking), and when
// Ctrl-C ended it early; otherwise 1. Either way the processes are gone and so
// is the directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

// wholeRun bounds everything: the promise is under a minute, whatever happens.
const wholeRun = 55 * time.Second

// errWrong is a promise broken or something left behind: no Ctrl-C excuses it.
var errWrong = errors.New("this must not happen")

type config struct {
	endpoints string
	name      string
	ttl       time.Duration
}

func main() {
	if os.Getenv(nodeEnv) != "" {
		os.Exit(nodeMain())
	}
	var cfg config
	flag.StringVar(&cfg.endpoints, "endpoints", "", "comma-separated endpoints of a cluster to use (default: an etcd of its own)")
	flag.StringVar(&cfg.name, "name", "/dev/lock", "the key to campaign for")
	flag.DurationVar(&cfg.ttl, "ttl", 3*time.Second, "TTL of the nodes' leases, 2s to 8s")
	flag.Parse()

	// SIGPIPE is among them so that `failover | head` cleans up as well.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err := run(ctx, cfg, os.Stdout)
	switch {
	case ctx.Err() != nil && !errors.Is(err, errWrong):
		fmt.Println("\nended early, as asked: processes and directory are gone")
	case err != nil:
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config, out io.Writer) (err error) {
	if cfg.ttl < 2*time.Second || cfg.ttl > 8*time.Second || flag.NArg() > 0 {
		return errors.New("the TTL must be 2s to 8s, for the whole to end within a minute; there are no arguments but flags")
	}
	if err := canFreeze(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wholeRun, fmt.Errorf("not done after %v", wholeRun))
	defer cancel()

	where := cfg.endpoints
	if cfg.endpoints == "" {
		etcd, startErr := embedded.Start(ctx)
		if startErr != nil {
			return startErr
		}
		defer func() { err = errors.Join(err, wrong(etcd.Close())) }()
		cfg.endpoints = strings.Join(etcd.Endpoints(), ",")
		where = "an etcd of its own at " + cfg.endpoints
	}
	client, err := embedded.Dial(strings.Split(cfg.endpoints, ",")...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	session, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(cfg.ttl))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	fmt.Fprintf(out, "three processes campaign for %s; etcd: %s\n\n", cfg.name, where)
	return newDirector(cfg, session, out).direct(ctx)
}

func wrong(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errWrong, err)
}
