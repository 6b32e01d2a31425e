package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcdlock/etcdlock"
)

const aboutHold = `Take the lock NAME, print one line of JSON, and hold the lock until a signal comes:

  {"name":"/cron/lock/job9","key":"/cron/lock/job9/694d…-1","token":42,
   "lease":"694d…","identity":"host-17"}

For scripts that need a lock across several commands. Nobody ends them when the lock
is lost: hold exits with 123 then, at once, and the script has to look. run is safer.`

const codesHold = `Exit codes:
  0      released after a signal
  123    lost
  124    not obtained: busy, or --wait is over
  125    etcdlock failed: usage, etcd away, no permission
  128+N  signal N came while waiting for the lock`

// holding is the line that tells of a hold.
type holding struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Token    int64  `json:"token"`
	Lease    string `json:"lease"`
	Identity string `json:"identity"`

	Slot      *int  `json:"slot,omitempty"`
	SlotToken int64 `json:"slot_token,omitempty"`
}

func (a *app) holdCommand() *cobra.Command {
	var w want
	var m membership
	var conflict, lost uint8
	cmd := &cobra.Command{
		Use: "hold [flags] NAME", Short: "Hold a lock until a signal", Long: aboutHold,
		Annotations: map[string]string{"codes": codesHold},
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) != 1 {
				return failed("%s", nameNeeded(cmd, names))
			}
			if err := w.check(cmd.Flags(), names); err != nil {
				return err
			}
			if err := m.check(); err != nil {
				return err
			}
			return a.hold(m, conflict, lost, func(ctx context.Context, s *member) (*held, error) {
				return w.take(ctx, s, a.conn.commandTimeout)
			})
		},
	}
	w.flags(cmd.Flags())
	m.flags(cmd.Flags())
	cmd.Flags().Uint8Var(&conflict, "conflict-exit-code", exitConflict, "exit `CODE` when the lock was not obtained")
	cmd.Flags().Uint8Var(&lost, "lost-exit-code", exitLost, "exit `CODE` when the lock was lost")
	a.complete(cmd)
	return cmd
}

// hold takes a lock, says so on stdout, and keeps it until a signal comes or it is lost.
func (a *app) hold(m membership, conflict, lost uint8, take func(context.Context, *member) (*held, error)) error {
	g := newGate()
	s, err := a.open(g.ctx, m)
	if err == nil {
		defer s.close()
		var h *held
		if h, err = take(g.ctx, s); err == nil {
			return a.keep(g, h, s.Session, lost)
		}
		err = s.notObtained(g.ctx, err, conflict)
	}
	if end := g.signalled(); end != nil {
		return end
	}
	return err
}

func (a *app) keep(g *gate, h *held, s *etcdlock.Session, code uint8) error {
	line := holding{Name: h.name, Key: h.key(), Token: h.token, Lease: leaseID(h.lease().ID), Identity: s.Identity()}
	if h.slot != nil {
		line.Slot, line.SlotToken = &h.slot.number, h.slot.token
	}
	said := make(chan error, 1)
	go func() { said <- json.NewEncoder(os.Stdout).Encode(line) }() // a pipe that is full keeps nobody from ending
	look := time.NewTicker(lookEvery)                               // timers stand still while the machine sleeps
	defer look.Stop()
	for h.ctx.Err() == nil && g.ctx.Err() == nil {
		select {
		case <-h.ctx.Done():
		case <-g.ctx.Done():
		case err := <-said:
			if err != nil {
				_ = a.release(context.Background(), h)
				return failed("nobody can be told of the hold: %w", err)
			}
		case <-look.C:
		}
	}
	lost := h.ctx.Err() != nil
	if a.release(context.Background(), h) || lost {
		return &ending{int(code), fmt.Errorf("%s: the lock was lost", h.name)}
	}
	return nil
}
