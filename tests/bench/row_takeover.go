package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const takeoverTTL = 5 * time.Second

// takeover is how long after the holder's process was killed the next Lock
// returns, less the TTL: the servers count from the last renewal, so it can
// be below nothing. A session closed in good order is beside it.
func takeover(ctx context.Context, e *env, r *report) error {
	n := e.pick(10, 4)
	got := make([]sample, 2)
	err := parallel(2, func(k int) error { // apart from one another; nearly all of it is waiting
		for range e.pick(2, 1) {
			if err := killed(ctx, e, both()[k], n, &got[k]); err != nil {
				return fmt.Errorf("%s: %w", both()[k].name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.add(result{row: "takeover", what: "holder killed, takeover minus TTL, worst", where: e.where(), unit: "s",
		ours: got[0].quantile(1), theirs: got[1].quantile(1), goal: atMost(got[0].quantile(1), 1, "seconds"),
		note: fmt.Sprintf("median %s / %s of %d kills", number(got[0].median()), number(got[1].median()), len(got[0]))})
	return closed(ctx, e, r)
}

// killed starts a process that holds n locks with a session each, waits for
// all of them, and kills it.
func killed(ctx context.Context, e *env, l lib, n int, into *sample) error {
	ctx, cancel := context.WithTimeout(ctx, 4*takeoverTTL)
	defer cancel()
	name := e.name("takeover-" + l.name)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, self, "-hold", l.name, "-hold-name", name, "-hold-count", fmt.Sprint(n),
		"-endpoints", strings.Join(e.endpoints, ","))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	defer child.Wait()
	defer child.Process.Kill()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		return fmt.Errorf("the holder said %q: %w", line, err)
	}
	p, err := newPool(ctx, l, e.endpoints, n)
	if err != nil {
		return err
	}
	defer p.close()
	seen, err := e.puts(ctx, name)
	if err != nil {
		return err
	}
	type taken struct {
		at  time.Time
		err error
	}
	takes := make(chan taken, n)
	for i := range n {
		m := p.sessions[i].mutex(fmt.Sprintf("%s/%d", name, i))
		go func() {
			err := m.Lock(ctx)
			takes <- taken{time.Now(), err}
		}()
	}
	if err := seen(n); err != nil {
		return err
	}
	pause(ctx, 500*time.Millisecond)
	start := time.Now()
	if err := child.Process.Kill(); err != nil {
		return err
	}
	for range n {
		t := <-takes
		if t.err != nil {
			return t.err
		}
		into.add((t.at.Sub(start) - takeoverTTL).Seconds())
	}
	return nil
}

// hold is the process that is killed. Its sessions start spread over one
// renewal interval, so that the kill meets each at another age.
func hold(ctx context.Context, libName string, endpoints []string, name string, n int) error {
	for _, l := range both() {
		if l.name != libName {
			continue
		}
		c, _, err := newClient(endpoints)
		if err != nil {
			return err
		}
		for i := range n {
			s, err := l.session(ctx, c, takeoverTTL)
			if err != nil {
				return err
			}
			if err := s.mutex(fmt.Sprintf("%s/%d", name, i)).Lock(ctx); err != nil {
				return err
			}
			pause(ctx, takeoverTTL/3/time.Duration(n))
		}
		fmt.Println("held")
		// Whoever started this kills it; if that one is gone, a minute ends it.
		pause(ctx, time.Minute)
		return errors.New("was not killed")
	}
	return fmt.Errorf("no library %q", libName)
}

// closed is the handoff by Close of a session that holds.
func closed(ctx context.Context, e *env, r *report) error {
	f, err := newFloor(ctx, e, e.endpoints)
	if err != nil {
		return err
	}
	defer f.stop()
	var bare sample
	got := make([]sample, 2)
	for k, l := range both() {
		p, err := newPool(ctx, l, e.endpoints, 2)
		if err != nil {
			return err
		}
		defer p.close()
		for range e.pick(15, 4) {
			if err := f.handoffs(ctx, 2, old, &bare); err != nil {
				return err
			}
			s, err := l.session(ctx, p.clients[0], sessionTTL)
			if err != nil {
				return err
			}
			name := e.name("close")
			q := []queue{mutexQueue{s.mutex(name)}, mutexQueue{p.sessions[1].mutex(name)}}
			w, err := newLine(ctx, e, name, q, scene{clients: 2})
			if err != nil {
				return err
			}
			pause(ctx, old)
			start := time.Now()
			if err := s.Close(); err != nil {
				return fmt.Errorf("%s: Close: %w", l.name, err)
			}
			g := <-w.got
			if g.err != nil {
				return fmt.Errorf("%s: %w", l.name, g.err)
			}
			w.holder = 1
			got[k].addTime(g.at.Sub(start))
			if err := w.disband(ctx); err != nil {
				return err
			}
		}
	}
	b, o := bare.median(), got[0].median()
	r.add(result{row: "takeover", what: "handoff by Close of the session", where: e.where(), unit: "ms",
		floor: b, ours: o, theirs: got[1].median(), goal: atMost(ratio(o, b), 1.5, overFloor)})
	return nil
}
