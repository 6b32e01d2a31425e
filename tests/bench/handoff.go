package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A line is one queue: a holder, and waiters blocked in Lock or Campaign.
type line struct {
	places []queue
	holder int
	got    chan grab
	wg     sync.WaitGroup
	cancel context.CancelFunc
	crowd  *crowd
}

type grab struct {
	who int
	at  time.Time
	err error
}

// newLine queues one contender per place and then, behind them, the tickets of
// a crowd. It returns the moment the last ticket is in the store, so a release
// right after it meets a waiter that has only just queued.
func newLine(ctx context.Context, e *env, name string, places []queue, s scene) (_ *line, err error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &line{places: places, got: make(chan grab, len(places)), cancel: cancel}
	defer func() {
		if err != nil {
			cancel()
			l.wg.Wait()
		}
	}()
	until, err := e.puts(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := places[0].enter(ctx); err != nil {
		return nil, err
	}
	quit, quits := context.WithCancel(ctx)
	defer quits()
	for i := 1; i < len(places); i++ {
		wctx := ctx
		if s.quitter && i == 1 {
			wctx = quit
		}
		l.wg.Go(func() {
			err := places[i].enter(wctx)
			l.got <- grab{i, time.Now(), err}
		})
		if s.quitter { // who is behind whom matters
			if err := until(i + 1); err != nil {
				return nil, err
			}
		}
	}
	if err := until(len(places)); err != nil {
		return nil, err
	}
	if s.extra > 0 {
		if l.crowd, err = newCrowd(ctx, e.observer, name, s.extra); err != nil {
			return nil, err
		}
	}
	if s.quitter {
		quits()
		if g := <-l.got; !errors.Is(g.err, context.Canceled) {
			return nil, fmt.Errorf("a waiter that gave up returned %w", g.err)
		}
	}
	return l, nil
}

// handoff releases and returns how long it took, from the call of Unlock, until
// the next contender had returned from Lock.
func (l *line) handoff(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	if err := l.places[l.holder].leave(ctx); err != nil {
		return 0, err
	}
	select {
	case g := <-l.got:
		if g.err != nil {
			return 0, g.err
		}
		l.holder = g.who
		return g.at.Sub(start), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("nobody took over: %w", ctx.Err())
	}
}

// disband cancels who still waits, before the holder leaves: none of them
// may come to hold on the way out.
func (l *line) disband(ctx context.Context) error {
	l.cancel()
	l.wg.Wait()
	err := l.places[l.holder].leave(ctx)
	if l.crowd != nil {
		if lerr := l.crowd.leave(ctx); err == nil {
			err = lerr
		}
	}
	return err
}

// A scene says what a handoff measurement looks like.
type scene struct {
	clients  int
	extra    int           // tickets of a crowd behind the real waiters
	age      time.Duration // how long the waiters have waited at the release
	lines    int           // queues prepared together, to age together
	handoffs int           // at most, per line
	holds    time.Duration // how long each holder keeps it before it releases
	election bool
	quitter  bool // the first waiter gives up before the release
}

// handoffs plays a scene once with the sessions of a pool.
func (p *pool) handoffs(ctx context.Context, e *env, s scene, into *sample) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var lines []*line
	defer func() {
		for _, l := range lines {
			if derr := l.disband(ctx); err == nil && derr != nil {
				err = fmt.Errorf("%s: leaving: %w", p.lib.name, derr)
			}
		}
	}()
	for range s.lines {
		name := e.name(p.lib.name)
		l, err := newLine(ctx, e, name, p.places(name, s), s)
		if err != nil {
			return fmt.Errorf("%s: queueing: %w", p.lib.name, err)
		}
		lines = append(lines, l)
	}
	pause(ctx, s.age)
	for _, l := range lines {
		for range min(s.handoffs, s.clients-1) {
			if s.holds > 0 {
				pause(ctx, s.holds)
			}
			d, err := l.handoff(ctx)
			if err != nil {
				return fmt.Errorf("%s: handoff: %w", p.lib.name, err)
			}
			into.addTime(d)
		}
	}
	return nil
}

func (p *pool) places(name string, s scene) []queue {
	out := make([]queue, s.clients)
	for i := range out {
		if s.election {
			out[i] = electionQueue{p.sessions[i].election(name)}
		} else {
			out[i] = mutexQueue{p.sessions[i].mutex(name)}
		}
	}
	return out
}
