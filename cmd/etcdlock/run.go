package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcdlock/etcdlock"
)

const aboutRun = `Take the lock NAME, or all of several, run CMD, release, and exit with CMD's exit code.

CMD is dead before etcd can give the lock to anybody else, by this machine's clock,
also while etcd is frozen or cannot be reached: it gets SIGTERM when the lock is
about to be lost, and SIGKILL --kill-after later. If somebody removes the lock under
it, it gets SIGKILL at once. Signals and kills go to CMD and its children; in the
foreground of a terminal, and with --foreground, to CMD alone.`

const exampleRun = `  etcdlock run /cron/lock/job9 -- backup --full        wait for the lock, however long
  etcdlock run -w 0 /cron/lock/job9 -- backup          only if it is free; else exit code 124
  etcdlock run -w 5m -c 'dump | gzip > d' /dump        a line for $SHELL
  etcdlock run -w 0 --hold-at-least 1m /cron/job -- x  once a minute, though clocks differ
  etcdlock run --shared /data -- report                with other readers, without writers
  etcdlock run /acct/7 /acct/9 -- transfer             both, or none; nobody deadlocks
  etcdlock run --permits 4 /gpu -- train               four at once`

const codesRun = `Exit codes:
  CMD's    CMD ended while the lock was held; 128+N if signal N ended it
  123      the lock was lost before CMD ended, whatever CMD's own exit code
  124      the lock was not obtained: busy, or --wait is over
  125      etcdlock failed: usage, etcd away, no permission
  126 127  CMD cannot be run; there is no such CMD
  128+N    signal N came while waiting for the lock; nothing was run

CMD finds in its environment: ETCDLOCK_NAME, ETCDLOCK_KEY, ETCDLOCK_TOKEN (the
fencing token: give it to the store that you write to), ETCDLOCK_LEASE and
ETCDLOCK_IDENTITY; with --slot ETCDLOCK_SLOT and ETCDLOCK_SLOT_TOKEN; and, as of
etcdctl lock, ETCD_LOCK_KEY and ETCD_LOCK_REV.`

// runner is a call that runs a command: run, and elect with one.
type runner struct {
	*app
	member       membership
	policy       policy
	lostCode     uint8
	conflictCode uint8
	foreground   bool
	line         string // of -c
	name         string // of the command, as it was given
	path         string
	argv         []string
}

func (r *runner) flags(fs *pflag.FlagSet) {
	r.member.flags(fs)
	r.policy.flags(fs)
	fs.StringVarP(&r.line, "command", "c", "", "run this `LINE` by $SHELL -c, instead of CMD")
	fs.BoolVar(&r.foreground, "foreground", false, "signals and kills reach CMD alone, which may read from the terminal")
	fs.Uint8Var(&r.lostCode, "lost-exit-code", exitLost, "exit `CODE` when the lock was lost")
}

// check completes r once the flags are read. It finds the command before the lock is taken.
func (r *runner) check(cmd *cobra.Command, argv []string) error {
	if err := r.member.check(); err != nil {
		return err
	}
	if err := r.policy.check(cmd.Flags(), r.member.ttl); err != nil {
		return err
	}
	switch {
	case r.line != "" && len(argv) > 0:
		return failed("both -c and a command after --: give one of them")
	case r.line != "":
		shell := os.Getenv("SHELL")
		if shell == "" {
			shell = "/bin/sh"
		}
		argv = []string{shell, "-c", r.line}
	}
	r.name, r.argv = argv[0], argv
	path, err := exec.LookPath(r.name)
	if err != nil {
		return cannotRun(r.name, err)
	}
	r.path = path
	return nil
}

func (a *app) runCommand() *cobra.Command {
	r := &runner{app: a}
	var w want
	cmd := &cobra.Command{
		Use: "run [flags] NAME... -- CMD [ARG...]", Short: "Run a command under a lock",
		Long: aboutRun, Example: exampleRun, Annotations: map[string]string{"codes": codesRun},
		RunE: func(cmd *cobra.Command, args []string) error {
			names, argv, err := splitAtDash(cmd, args, r.line != "")
			if err != nil {
				return err
			}
			if err := w.check(cmd.Flags(), names); err != nil {
				return err
			}
			if err := r.check(cmd, argv); err != nil {
				return err
			}
			return r.run(func(ctx context.Context, m *member) (*held, error) {
				return w.take(ctx, m, a.conn.commandTimeout)
			})
		},
	}
	w.flags(cmd.Flags())
	cmd.Flags().DurationVar(&w.atLeast, "hold-at-least", 0,
		"`DURATION` that the lock stays taken, counted from when it was, also if CMD ends before")
	cmd.Flags().Uint8Var(&r.conflictCode, "conflict-exit-code", exitConflict, "exit `CODE` when the lock was not obtained")
	r.flags(cmd.Flags())
	a.complete(cmd)
	return cmd
}

// splitAtDash parts the names of locks from the command.
func splitAtDash(cmd *cobra.Command, args []string, line bool) (names, argv []string, err error) {
	at := cmd.ArgsLenAtDash()
	switch {
	case at >= 0:
		names, argv = args[:at], args[at:]
	case line:
		names = args
	case len(args) > 1:
		return nil, nil, failed("no command: put -- before it, as in: %s %s -- %s", cmd.CommandPath(), args[0], strings.Join(args[1:], " "))
	default:
		names = args
	}
	if len(names) == 0 {
		return nil, nil, failed("no name: what is the lock called? As in: %s /cron/lock/job9 -- CMD", cmd.CommandPath())
	}
	if len(argv) == 0 && !line {
		return nil, nil, failed("no command: put it behind --, as in: %s %s -- CMD", cmd.CommandPath(), strings.Join(names, " "))
	}
	return names, argv, nil
}

// nameNeeded says that the call takes one name.
func nameNeeded(cmd *cobra.Command, names []string) string {
	if len(names) == 0 {
		return fmt.Sprintf("no name: what is the lock called? As in: %s /cron/lock/job9", cmd.CommandPath())
	}
	return fmt.Sprintf("%d names: it takes one, as in: %s %s", len(names), cmd.CommandPath(), names[0])
}

// run takes a lock and runs the command under it.
func (r *runner) run(take func(context.Context, *member) (*held, error)) error {
	g := newGate()
	m, err := r.open(g.ctx, r.member)
	if err == nil {
		defer m.close()
		var h *held
		if h, err = take(g.ctx, m); err == nil {
			return r.under(g, h, m.Session)
		}
		err = m.notObtained(g.ctx, err, r.conflictCode)
	}
	if end := g.signalled(); end != nil {
		return end
	}
	return err
}

// under runs the command under a hold, and releases it.
func (r *runner) under(g *gate, h *held, s *etcdlock.Session) error {
	log := r.logger()
	log.Info("the lock is held", "name", h.label(), "token", h.token, "key", h.key())
	env := append(withoutHold(os.Environ()), environment(h, s)...)
	child := newProcess(r.path, r.argv, env, r.foreground)
	if err := g.start(child); err != nil {
		_ = r.release(context.Background(), h)
		var end *ending
		if errors.As(err, &end) {
			return err
		}
		return cannotRun(r.name, err)
	}
	h.ran = true
	code, kept := supervise(h, child, r.policy, log)
	g.ended()
	kept = !r.release(g.ctx, h) && kept
	if !kept {
		return &ending{int(r.lostCode), fmt.Errorf("the lock was lost before %s had ended, with exit code %d", r.name, code)}
	}
	if code == 0 {
		return nil
	}
	return &ending{code, nil}
}

// withoutHold is env without what an etcdlock outside this one has told of its own hold: that may be another lock.
func withoutHold(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		key, _, _ := strings.Cut(v, "=")
		switch key {
		case "ETCDLOCK_NAME", "ETCDLOCK_KEY", "ETCDLOCK_TOKEN", "ETCDLOCK_LEASE", "ETCDLOCK_IDENTITY",
			"ETCDLOCK_SLOT", "ETCDLOCK_SLOT_TOKEN", "ETCD_LOCK_KEY", "ETCD_LOCK_REV":
			return true
		}
		return false
	})
}

// environment is what the command is told of its hold. The last two are etcdctl's.
func environment(h *held, s *etcdlock.Session) []string {
	token := fmt.Sprint(h.token)
	env := []string{
		"ETCDLOCK_NAME=" + h.name, "ETCDLOCK_KEY=" + h.key(), "ETCDLOCK_TOKEN=" + token,
		"ETCDLOCK_LEASE=" + leaseID(h.lease().ID), "ETCDLOCK_IDENTITY=" + s.Identity(),
		"ETCD_LOCK_KEY=" + h.keys[0], "ETCD_LOCK_REV=" + token,
	}
	if h.slot != nil {
		env = append(env, fmt.Sprintf("ETCDLOCK_SLOT=%d", h.slot.number), fmt.Sprintf("ETCDLOCK_SLOT_TOKEN=%d", h.slot.token))
	}
	return env
}
