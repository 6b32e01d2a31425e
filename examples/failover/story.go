package main

// Three acts: killed, resigned, frozen.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock"
)

// scene is how long the picture stands still between two events, so that it
// can be told apart afterwards.
const scene = 1500 * time.Millisecond

func (d *director) story(ctx context.Context) error {
	for _, name := range []string{"node1", "node2", "node3"} {
		if err := d.enter(ctx, name, "started"); err != nil {
			return err
		}
	}
	var passed []string
	for i, act := range []func(context.Context) (string, error){d.killed, d.resigned, d.frozen} {
		if err := d.pause(ctx, scene); err != nil {
			return err
		}
		how, err := act(ctx)
		if err != nil {
			return err
		}
		passed = append(passed, fmt.Sprintf("  %d  %s", i+1, how))
	}
	if err := d.pause(ctx, scene); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nhow the lead passed on (TTL %v, renewed every third of it)\n%s\n", d.granted, strings.Join(passed, "\n"))
	fmt.Fprintf(d.out, "tokens only grew: %s\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(d.tokens), " ", " < "), "[]"))
	return nil
}

// enter starts a node and waits until it leads or stands by.
func (d *director) enter(ctx context.Context, name, how string) error {
	p, err := d.launch(name)
	if err != nil {
		return err
	}
	d.line(time.Now(), name, "%s, process %d", how, p.cmd.Process.Pid)
	if len(d.tokens) > 0 {
		return d.standsBy(ctx, name)
	}
	_, err = d.await(ctx, name+" leads", func(e event) bool { return e.Kind == leads && e.Node == name })
	return err
}

// standsBy waits until a node is in the queue. That is for etcd to say, and a
// Mutex can be asked: an election and a lock of one name are the same queue.
func (d *director) standsBy(ctx context.Context, name string) error {
	line := etcdlock.NewMutex(d.session, d.cfg.name)
	for range 500 {
		waiters, err := line.Waiters(ctx)
		if err != nil {
			return err
		}
		var order []string
		for _, w := range waiters {
			order = append(order, w.Identity)
		}
		if slices.Contains(order, name) {
			d.picture.set(time.Since(d.start), name, standby)
			d.line(time.Now(), name, "stands by; the order is %s", strings.Join(order, ", "))
			return nil
		}
		if err := d.pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not stand by", name)
}

// curtain announces an act and returns who leads.
func (d *director) curtain(ctx context.Context, number byte, title string) (string, *process, error) {
	if d.leader == "" { // a lease was lost to a machine that stalled
		if _, err := d.await(ctx, "somebody leads", func(e event) bool { return e.Kind == leads }); err != nil {
			return "", nil, err
		}
	}
	fmt.Fprintf(d.out, "\n%c. %s\n", number, title)
	d.picture.set(time.Since(d.start), "", number)
	return d.leader, d.nodes[d.leader], nil
}

// successor waits for the next leader, and says how long it took since then.
func (d *director) successor(ctx context.Context, old string, since time.Time) (string, time.Duration, error) {
	e, err := d.await(ctx, "somebody else leads", func(e event) bool { return e.Kind == leads && e.Node != old })
	return e.Node, e.At.Round(0).Sub(since.Round(0)), err
}

func (d *director) killed(ctx context.Context) (string, error) {
	old, p, err := d.curtain(ctx, '1', "the master is killed, and can give nothing back")
	if err != nil {
		return "", err
	}
	p.ending = true
	at := time.Now()
	if err := p.cmd.Process.Kill(); err != nil {
		return "", err
	}
	d.notLeading(old)
	d.picture.set(at.Sub(d.start), old, dead)
	d.line(at, old, "is killed (SIGKILL); its lease has up to %v to run", d.granted)
	heir, took, err := d.successor(ctx, old, at)
	if err != nil {
		return "", err
	}
	d.line(time.Now(), heir, "took over %v after the kill; the TTL is %v", short(took), d.granted)
	if err := d.enter(ctx, old, "started anew"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s killed (SIGKILL)   -> %s after %v: its lease had to run out", old, heir, short(took)), nil
}

func (d *director) resigned(ctx context.Context) (string, error) {
	old, p, err := d.curtain(ctx, '2', "the master steps down (Resign)")
	if err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(p.orders, "resign"); err != nil {
		return "", err
	}
	down, err := d.await(ctx, old+" steps down", func(e event) bool { return e.Kind == resigns && e.Node == old })
	if err != nil {
		return "", err
	}
	heir, took, err := d.successor(ctx, old, down.At)
	if err != nil {
		return "", err
	}
	d.line(time.Now(), heir, "took over %v after Resign was called", short(took))
	if err := d.standsBy(ctx, old); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s resigned           -> %s after %v: no waiting for any lease", old, heir, short(took)), nil
}

func (d *director) frozen(ctx context.Context) (string, error) {
	old, p, err := d.curtain(ctx, '3', "the master is frozen (SIGSTOP) past its TTL: it cannot know what it misses")
	if err != nil {
		return "", err
	}
	p.frozen = true
	at := time.Now()
	if err := freeze(p); err != nil {
		return "", err
	}
	d.picture.set(at.Sub(d.start), old, asleep)
	d.line(at, old, "is frozen; it still believes that it leads")
	heir, took, err := d.successor(ctx, old, at)
	if err != nil {
		return "", err
	}
	d.line(time.Now(), heir, "took over %v after the freeze; the TTL is %v", short(took), d.granted)
	if err := d.pause(ctx, max(scene, d.granted+scene-time.Since(at))); err != nil {
		return "", err
	}

	fmt.Fprintf(d.out, "\n4. the frozen one is thawed (SIGCONT)\n")
	d.picture.set(time.Since(d.start), "", '4')
	thawed := time.Now()
	if err := thaw(p); err != nil {
		return "", err
	}
	p.frozen = false
	e, err := d.await(ctx, old+" says whether it leads", func(e event) bool { return e.Node == old && (e.Kind == woke || e.Kind == lost) })
	if err != nil {
		return "", err
	}
	if e.Over == "" {
		return "", fmt.Errorf("%w: %s woke and believed that it leads", errWrong, old)
	}
	d.line(e.At, old, "runs again after %v without; its first question, Context().Err(),", short(e.Gap))
	d.line(e.At, old, "was answered: %s", e.Over)
	knew := e.At.Round(0).Sub(thawed.Round(0))
	if err := d.standsBy(ctx, old); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s frozen (SIGSTOP)   -> %s after %v; thawed after %v, %s knew %v later, at its first question",
		old, heir, short(took), short(thawed.Sub(at)), old, short(knew)), nil
}

// short is a duration to read, not to compute with.
func short(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Millisecond)
}
