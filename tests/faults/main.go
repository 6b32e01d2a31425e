//go:build unix

// Faults runs etcdlock, without and with WithLinger, and etcd's own concurrency
// package beside it, through faults on real etcd server processes: traffic held
// back, delayed and cut, members and clients frozen and killed, tickets and
// leases removed. It prints trials, violations and a figure for each case and
// ends with one table.
//
//	go run -C tests ./faults                  every experiment, all sides
//	go run -C tests ./faults -impl lingering  one side; several with commas
//	go run -C tests ./faults -run knows       one experiment
//	go run -C tests ./faults -short           the short form for CI
//	go run -C tests ./faults -out FILE        writes the table as Markdown; a
//	                                          relative path begins at the root
//	                                          of the repository
//
// Everything stays on the loopback interface and is removed at the end. The
// exit code is 1 if a row of etcdlock, lingering or not, has a violation or a
// case could not run. A run that did not come to its end writes no file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

type experiment struct {
	name, title string
	run         func(context.Context, *suite) error
}

var experiments = []experiment{
	{"knows", "Who knows first", runKnows},
	{"rule", "Is the rule needed", runRule},
	{"ghosts", "Ghosts", runGhosts},
	{"return", "Return in time", runReturn},
	{"heal", "Healing", runHeal},
	{"outofband", "Out-of-band", runOutOfBand},
	{"stays", "Locks that stay taken", runStays},
	{"leaks", "Leaks and load", runLeaks},
}

// suite is what the experiments share: the choices and the results.
type suite struct {
	impls  []impl
	trials int // per case; 0: the experiment's own number
	short  bool
	only   string // part of a case's name
	seed   uint64
	title  string
	args   string // the command line, for the page

	mu   sync.Mutex // guards rows
	rows []row
}

// pick is the number of trials of a case: what was asked for, or a default.
func (s *suite) pick(full, short int) int {
	switch {
	case s.trials > 0:
		return s.trials
	case s.short:
		return short
	}
	return full
}

func (s *suite) want(name string) bool { return strings.Contains(name, s.only) }

func (s *suite) rand() *rand.Rand { return rand.New(rand.NewPCG(s.seed, 1)) }

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(child(os.Args[2:]))
	}
	os.Exit(run())
}

func run() int {
	s := &suite{}
	only := flag.String("run", "", "experiments to run, separated by commas (default all): "+names())
	which := flag.String("impl", "etcdlock,lingering,readers,permits,names,concurrency", "sides to run, separated by commas")
	out := flag.String("out", "", "file for the table; a relative path begins at the root of the repository")
	flag.IntVar(&s.trials, "trials", 0, "trials per case (default: each experiment's own number)")
	flag.Uint64Var(&s.seed, "seed", 1, "seed of the random moments")
	flag.BoolVar(&s.short, "short", false, "the short form, under two minutes")
	flag.StringVar(&s.only, "case", "", "only cases whose name contains this")
	flag.Parse()
	chosen := strings.Split(*which, ",")
	for _, side := range sides {
		if contains(chosen, side.flag) {
			s.impls = append(s.impls, side.impl)
		}
	}
	if len(s.impls) != len(chosen) {
		fmt.Fprintln(os.Stderr, "faults: unknown -impl", *which)
		return 2
	}
	toRun := experiments
	if *only != "" {
		toRun = nil
		for name := range strings.SplitSeq(*only, ",") {
			k := slices.IndexFunc(experiments, func(e experiment) bool { return e.name == name })
			if k < 0 {
				fmt.Fprintf(os.Stderr, "faults: no experiment %q; there are: %s\n", name, names())
				return 2
			}
			toRun = append(toRun, experiments[k])
		}
	}
	page, err := repo.Path(*out)
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 2
	}
	s.args = strings.Join(os.Args[1:], " ")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A reader that has seen enough (| head) must not end the run before its
	// servers and directories are removed.
	signal.Ignore(syscall.SIGPIPE)

	if err := s.execute(ctx, toRun, page); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		return 1
	}
	return 0
}

// execute runs the experiments and prints their table. It writes the page, where one is wanted, if all of them came to
// their end: what stands there is what a whole run has shown, whatever that was.
func (s *suite) execute(ctx context.Context, experiments []experiment, page string) error {
	var unfinished []error
	start := time.Now()
	for _, e := range experiments {
		if ctx.Err() != nil {
			break
		}
		s.title = e.title
		fmt.Printf("== %s (%s)\n", e.title, e.name)
		if err := e.run(ctx, s); err != nil {
			unfinished = append(unfinished, fmt.Errorf("%s: %w", e.name, err))
			fmt.Println("   could not run to its end:", err)
		}
	}
	unfinished = append(unfinished, ctx.Err())
	if len(s.rows) == 0 {
		unfinished = append(unfinished, errors.New("nothing was tried"))
	}
	fmt.Printf("\n%s\n", table(s.impls, s.rows))

	failed := unfinished
	switch err := errors.Join(unfinished...); {
	case page == "":
	case err != nil:
		failed = append(failed, fmt.Errorf("the run did not come to its end: %s is left as it was", page))
	default:
		failed = append(failed, os.WriteFile(page, []byte(document(s, time.Since(start))), 0o644))
	}
	for _, r := range s.rows {
		if r.claimed() && r.violations > 0 {
			failed = append(failed, fmt.Errorf("%s, %s, %s: %d violations", r.impl, r.experiment, r.name, r.violations))
		}
	}
	return errors.Join(failed...)
}

func names() string {
	var n []string
	for _, e := range experiments {
		n = append(n, e.name)
	}
	return strings.Join(n, ", ")
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
