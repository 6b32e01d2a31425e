// Command histories records what many clients of one lock service saw while everything around them failed, and checks
// it against what a lock is.
//
// It starts real etcd members and client machines as processes of their own, each machine behind a TCP proxy. The
// machines lock and unlock a few names in all ways that this library has, campaign, observe, and share Sessions and
// Mutex values between goroutines; clients of etcd's own concurrency package are mixed in. Meanwhile links are held,
// delayed and cut, members and machines frozen and killed, tickets and leases removed, by a schedule that the seed
// decides. Then porcupine checks each name's history against a model of a lock with tokens, and further checks hold
// the records against etcd's own.
//
//	go run -C tests ./histories -seed 7 -duration 60s
//	go run -C tests ./histories -seed 7 -duration 60s -linger 300ms
//
// The exit code is 0 for a clean run, 1 if a check failed. With -bug NAME the clients are broken on purpose, and
// anything but a failed check would be the failure. What cannot be held against a client is told in the summary, not
// hidden: tickets that an operator removed, and those that an old leader revoked on waking.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == machineFlag {
		if err := beMachine(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(command())
}

func command() int {
	opt := options{tell: func(format string, args ...any) { fmt.Printf(format+"\n", args...) }}
	flag.Uint64Var(&opt.seed, "seed", uint64(time.Now().UnixNano()%1e6), "decides the schedule and the clients' choices")
	flag.DurationVar(&opt.duration, "duration", time.Minute, "how long the faults go on")
	flag.DurationVar(&opt.ttl, "ttl", 3*time.Second, "of the Sessions")
	flag.IntVar(&opt.members, "members", 3, "of the cluster, 1 or 3")
	flag.IntVar(&opt.machines, "machines", 3, "that use this library; one more uses concurrency")
	flag.DurationVar(&opt.linger, "linger", 0, "the first Session of each machine keeps released locks for so long, and one more lock is mostly its own")
	flag.StringVar(&opt.bug, "bug", "", "break the clients on purpose: "+strings.Join(sorted(bugs), ", "))
	flag.BoolVar(&opt.inside, "inside", false, "etcd and clients in this process: nothing is frozen or killed")
	out := flag.String("out", "", "file for the records, one JSON document a line; a relative path begins at the root of the repository")
	quiet := flag.Bool("quiet", false, "do not print the faults")
	flag.Parse()
	if _, known := bugs[opt.bug]; opt.bug != "" && !known || opt.members != 1 && opt.members != 3 || opt.ttl < 2*time.Second ||
		opt.linger < 0 || (opt.bug == "revive" || opt.bug == "hog") && opt.linger == 0 {
		flag.Usage()
		return 2
	}
	if *quiet {
		opt.tell = func(string, ...any) {}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if *out != "" {
		path, err := repo.Path(*out)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		file, err := os.Create(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		defer file.Close()
		records := bufio.NewWriter(file)
		defer records.Flush()
		opt.out = records
	}
	fmt.Printf("seed %d, %v, %d members, TTL %v, linger %v\n", opt.seed, opt.duration, opt.members, opt.ttl, opt.linger)
	h, found, err := run(ctx, opt)
	if err != nil {
		fmt.Fprintln(os.Stderr, "the run did not come to its end:", err)
		return 2
	}
	fmt.Print(h.summary())
	for _, f := range found[:min(len(found), 50)] {
		fmt.Println("RED", f)
	}
	if len(found) > 0 {
		fmt.Printf("RED: %d findings; seed %d\n", len(found), opt.seed)
		return 1
	}
	fmt.Println("clean")
	return 0
}
