package main

import (
	"log/slog"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// This file ends a command in time. The hold ends by itself at S + TTL − TTL/20, the moment at which it can no longer be
// relied on, a twentieth of the TTL before etcd can give the lock to anybody else. The command is told to end a while
// before, at D, and is killed at the end of the hold; both by the local clock, whatever etcd does meanwhile:
//
//	S ───────────── renewals fail ───────────── D ──── --kill-after ────┤ hold over ── TTL/20 ──┤ etcd can give the lock away
//	                                            SIGTERM                 SIGKILL
//
// Where the hold ends before its time, because its ticket was removed or its lease revoked, somebody else may hold
// already: then the command is killed at once.

// lookEvery is how often the clock is asked in between: timers stand still while the machine sleeps.
const lookEvery = time.Second

type policy struct {
	onLost     string // kill, term or ignore
	signalName string
	signal     syscall.Signal // for D
	killAfter  time.Duration
}

const (
	defaultKillAfter = 5 * time.Second
	killPart         = 4 // --kill-after is at most this part of the TTL: what is left is for renewals
)

func (p *policy) flags(fs *pflag.FlagSet) {
	fs.DurationVar(&p.killAfter, "kill-after", defaultKillAfter, "`DURATION` from telling CMD to killing it, at most a quarter of --ttl")
	fs.StringVar(&p.signalName, "signal", "TERM", "`SIGNAL` that tells CMD to end")
	fs.StringVar(&p.onLost, "on-lost", "kill", "`WHAT` to do about a loss: kill; term, only tell CMD; ignore")
}

// check completes p once the flags are read.
func (p *policy) check(fs *pflag.FlagSet, ttl time.Duration) (err error) {
	switch p.onLost {
	case "kill", "term", "ignore":
	default:
		return failed("--on-lost %q: it takes kill, term or ignore", p.onLost)
	}
	if !fs.Changed("kill-after") {
		p.killAfter = min(p.killAfter, ttl/killPart)
	}
	if p.killAfter < 0 || p.killAfter > ttl/killPart {
		return failed("--kill-after %v: with --ttl %v it is from 0 to %v, a quarter; the rest is for renewals", p.killAfter, ttl, ttl/killPart)
	}
	p.signal, err = signalOf(p.signalName)
	return err
}

// supervise waits until the command has ended, and sees to it that this is in time. It returns the command's exit code,
// and whether the hold lasted until the command had ended, of its own accord.
func supervise(h *held, child *process, p policy, log *slog.Logger) (code int, kept bool) {
	before := p.killAfter
	if p.onLost == "ignore" {
		before = 0
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	told, killed := false, false
	over := h.ctx.Done()
	for {
		select {
		case <-child.ended:
			if told && p.onLost == "kill" {
				child.kill() // what it has left behind of its group
			}
			kept = !told && h.ctx.Err() == nil // asked before anybody can reap it: then it lasted to the command's end
			return child.reap(), kept
		case <-over:
			over = nil
		case <-timer.C:
		}
		left := h.left()
		if left > before {
			timer.Reset(min(left-before, lookEvery))
			continue
		}
		if left > 0 {
			timer.Reset(min(left, lookEvery))
		}
		switch {
		case p.onLost == "ignore" || killed:
		case left == 0 && p.onLost == "kill":
			child.kill()
			told, killed = true, true
			log.Error("the lock is lost: killed the command", "name", h.label(), "token", h.token)
		case !told:
			child.stop(p.signal)
			told = true
			what := "about to lose the lock: told the command to end"
			if left == 0 {
				what = "the lock is lost: told the command to end"
			}
			log.Error(what, "name", h.label(), "token", h.token, "signal", signalName(p.signal), "left", left.Round(time.Millisecond))
		}
	}
}
