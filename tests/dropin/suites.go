package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// suite is what is run of one package of etcd's tests.
type suite struct {
	pkg   string
	tests string // a regular expression
}

var suites = []suite{
	{"integration/clientv3/concurrency", "."},
	{"integration/clientv3/experimental/recipes", "."},
	{"integration", "Session|Mutex|Election|Lock|STM"},
}

// A test whose name says what the package offers; there are named of them.
var about = regexp.MustCompile("Session|Mutex|Election|Lock")

const named = 28

// told are the tests that must fail.
var told = map[string]string{
	"TestMutexSessionRelock":        "two mutexes of one session are to hold the same lock; here the second waits",
	"TestElectionSessionRecampaign": "two candidates of one session are to lead together; here the second waits",
}

// toldLimit is how long a test that waits for ever is let wait, and waits is where it must be seen to do so.
const (
	toldLimit = 8 * time.Second
	waits     = "etcdlock/internal/queue.(*Ticket).wait("
)

type outcome string

const (
	pass outcome = "passed"
	fail outcome = "failed"
	skip outcome = "SKIPPED"

	waiting outcome = "waits" // for ever, where it must: a failure of a test of which that is told
)

type result struct {
	name    string
	outcome outcome
	took    time.Duration
	counted bool
	output  string
}

var (
	ended = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)`)
	hung  = regexp.MustCompile(`(?m)^\s+(Test\S+) \(`) // the list of what was running when the time was over
)

// run runs the suite: first all that must pass, in one process, then each that must not in one of its own.
func (s suite) run(ctx context.Context, dir, bin string) ([]result, error) {
	list, err := s.start(ctx, dir, bin, "-test.list", s.tests).Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.pkg, err)
	}
	var names, red []string
	for name := range strings.Lines(string(list)) {
		name = strings.TrimSpace(name)
		switch {
		case !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Example"):
		case told[name] != "":
			red = append(red, name)
		default:
			names = append(names, name)
		}
	}
	results, err := s.some(ctx, dir, bin, names, 4*time.Minute)
	for _, name := range red {
		one, rerr := s.some(ctx, dir, bin, []string{name}, toldLimit)
		results, err = append(results, one...), errors.Join(err, rerr)
	}
	return results, err
}

func (s suite) start(ctx context.Context, dir, bin string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Dir = filepath.Join(dir, "tests", filepath.FromSlash(s.pkg))
	return cmd
}

// some runs these tests in one process.
func (s suite) some(ctx context.Context, dir, bin string, names []string, limit time.Duration) ([]result, error) {
	pattern := "^(" + strings.Join(names, "|") + ")$"
	cmd := s.start(ctx, dir, bin, "-test.v", "-test.run", pattern, "-test.timeout", limit.String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil && (ctx.Err() != nil || !errors.As(err, new(*exec.ExitError))) {
		return nil, errors.Join(ctx.Err(), err)
	}
	left := slices.Clone(names)
	var results []result
	add := func(name string, o outcome, took time.Duration) {
		left = slices.DeleteFunc(left, func(n string) bool { return n == name })
		r := result{name: name, outcome: o, took: took, counted: about.MatchString(name)}
		if o != pass {
			r.output = tail(out.String())
		}
		results = append(results, r)
	}
	lines := bufio.NewScanner(bytes.NewReader(out.Bytes()))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := ended.FindStringSubmatch(lines.Text()); m != nil && !strings.Contains(m[2], "/") {
			took, _ := strconv.ParseFloat(m[3], 64) // digits and a dot
			add(m[2], map[string]outcome{"PASS": pass, "FAIL": fail, "SKIP": skip}[m[1]], time.Duration(took*float64(time.Second)))
		}
	}
	for _, m := range hung.FindAllStringSubmatch(out.String(), -1) {
		switch {
		case !slices.Contains(left, m[1]):
		case told[m[1]] != "" && strings.Contains(out.String(), waits):
			add(m[1], waiting, limit)
		default:
			add(m[1], fail, limit)
		}
	}
	if err != nil && !slices.ContainsFunc(results, func(r result) bool { return r.outcome != pass }) {
		return nil, fmt.Errorf("%s: %w\n%s", s.pkg, err, tail(out.String())) // a leak of goroutines, or a crash
	}
	for _, name := range left {
		return nil, fmt.Errorf("%s: nothing is known of %s\n%s", s.pkg, name, tail(out.String()))
	}
	return results, lines.Err()
}

func tail(out string) string {
	const keep = 6000
	if len(out) > keep {
		out = "..." + out[len(out)-keep:]
	}
	return out
}
