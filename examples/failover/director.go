package main

// The director hears what the nodes say, prints it, keeps the record, and waits.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock"
)

type director struct {
	cfg      config
	session  *etcdlock.Session
	election *etcdlock.Election
	out      io.Writer
	start    time.Time
	picture  timeline

	told   *os.File // the pipe that all nodes write to
	events chan event
	over   chan struct{}
	joins  sync.WaitGroup
	nodes  map[string]*process

	leader  string        // who said last that it leads, until it says otherwise or is killed
	tokens  []int64       // of all leaders, in order
	granted time.Duration // the TTL that etcd granted the nodes
}

func newDirector(cfg config, session *etcdlock.Session, out io.Writer) *director {
	return &director{
		cfg: cfg, session: session, out: out,
		election: etcdlock.NewElection(session, cfg.name),
		events:   make(chan event, 64),
		over:     make(chan struct{}),
		nodes:    map[string]*process{},
		granted:  cfg.ttl,
		start:    time.Now(),
	}
}

// direct plays the story and returns when every process and goroutine of it is
// gone, whatever came of it.
func (d *director) direct(ctx context.Context) error {
	runtime.LockOSThread() // see launch
	defer runtime.UnlockOSThread()
	if l, err := d.election.Leader(ctx); err == nil {
		return fmt.Errorf("%s is held by %q (token %d): wait for it to go, or choose another key with -name", d.cfg.name, l.Value, l.Token)
	} else if !errors.Is(err, etcdlock.ErrNoLeader) {
		return err
	}
	pipe, told, err := os.Pipe()
	if err != nil {
		return err
	}
	d.told = told
	observing, unobserve := context.WithCancel(ctx)
	d.joins.Go(func() { d.listen(pipe) })
	d.joins.Go(func() { d.observe(observing) })

	err = d.story(ctx)

	close(d.over)
	unobserve()
	d.dismiss()
	err = errors.Join(err, told.Close()) // the last writer: listen ends
	d.joins.Wait()
	if len(d.tokens) > 0 {
		d.picture.end(time.Since(d.start))
		fmt.Fprint(d.out, "\n", d.picture.String())
	}
	if two := d.picture.twoMasters(); two != "" {
		err = errors.Join(err, wrong(errors.New(two)))
	}
	return err
}

func (d *director) line(at time.Time, who, format string, args ...any) {
	fmt.Fprintf(d.out, "%6.2f s  %-6s %s\n", at.Round(0).Sub(d.start.Round(0)).Seconds(), who, fmt.Sprintf(format, args...))
}

// hear takes in one event. What it refuses ends the story.
func (d *director) hear(e event) error {
	since := e.At.Round(0).Sub(d.start.Round(0)) // other processes' clocks: wall time
	switch e.Kind {
	case joined:
		d.granted = e.TTL
	case leads:
		if n := len(d.tokens); n > 0 && d.tokens[n-1] >= e.Token {
			return fmt.Errorf("%w: %s leads with token %d after token %d", errWrong, e.Node, e.Token, d.tokens[n-1])
		}
		d.tokens = append(d.tokens, e.Token)
		d.leader = e.Node
		d.picture.set(since, e.Node, master)
		d.line(e.At, e.Node, "IS MASTER, token %d", e.Token)
	case resigns:
		d.notLeading(e.Node)
		d.picture.set(since, e.Node, standby)
		d.line(e.At, e.Node, "steps down")
	case lost, woke:
		if e.Over == "" { // slept, and in time
			d.picture.set(since, e.Node, master)
			return nil
		}
		d.notLeading(e.Node)
		d.picture.set(since, e.Node, standby)
		if e.Kind == lost {
			d.line(e.At, e.Node, "lost the lead: %s", e.Over)
		}
	case observed:
		if e.Err != nil {
			return fmt.Errorf("observing: %w", e.Err)
		}
		d.picture.set(since, "etcd", nodeDigit(e.Leader))
	case exited:
		if p := d.nodes[e.Node]; p != nil && !p.ending {
			return fmt.Errorf("%s ended by itself: %w", e.Node, e.Err)
		}
	}
	return nil
}

func (d *director) notLeading(node string) {
	if d.leader == node {
		d.leader = ""
	}
}

// await hears events until one is wanted.
func (d *director) await(ctx context.Context, what string, wanted func(event) bool) (event, error) {
	// Far more than any step takes, and the TTL is what most of them take.
	limit := time.NewTimer(d.granted + 15*time.Second)
	defer limit.Stop()
	for {
		select {
		case e := <-d.events:
			if err := d.hear(e); err != nil {
				return e, err
			}
			if wanted(e) {
				return e, nil
			}
		case <-limit.C:
			return event{}, fmt.Errorf("waited too long until %s", what)
		case <-ctx.Done():
			return event{}, fmt.Errorf("while waiting until %s: %w", what, context.Cause(ctx))
		}
	}
}

// pause lets the story go on by itself for a while.
func (d *director) pause(ctx context.Context, length time.Duration) error {
	until := time.NewTimer(length)
	defer until.Stop()
	for {
		select {
		case e := <-d.events:
			if err := d.hear(e); err != nil {
				return err
			}
		case <-until.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
