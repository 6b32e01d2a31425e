package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/etcdlock/etcdlock"
)

const aboutElect = `Stand for the election NAME with VALUE, and lead until a signal comes, or until CMD has ended.

Others see VALUE: etcdlock who NAME, etcdctl elect -l NAME, and programs with the library.
With CMD it is as run: CMD runs while this process leads, and is dead before anybody else
can. Without, it is as hold: one line of JSON when it leads. Run it again after a loss.`

func (a *app) electCommand() *cobra.Command {
	r := &runner{app: a, conflictCode: exitConflict}
	cmd := &cobra.Command{
		Use: "elect [flags] NAME VALUE [-- CMD [ARG...]]", Short: "Lead an election, with or without a command", Long: aboutElect,
		Example:     "  etcdlock elect /db/leader 10.0.0.7:5432 -- promote-and-serve",
		Annotations: map[string]string{"codes": codesRun},
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.ArgsLenAtDash()
			var argv []string
			if at >= 0 {
				args, argv = args[:at], args[at:]
			}
			if len(args) != 2 || args[0] == "" {
				return failed("it takes a name and a value, as in: %s /db/leader 10.0.0.7:5432 -- CMD", cmd.CommandPath())
			}
			campaign := func(ctx context.Context, m *member) (*held, error) {
				e := etcdlock.NewElection(m.Session, args[0])
				if err := e.Campaign(ctx, args[1]); err != nil {
					return nil, err
				}
				return &held{name: args[0], keys: []string{e.Key()}, token: e.Token(), ctx: e.Context(), release: e.Resign}, nil
			}
			if at < 0 && r.line == "" {
				if err := r.member.check(); err != nil {
					return err
				}
				return a.hold(r.member, exitConflict, r.lostCode, campaign)
			}
			if len(argv) == 0 && r.line == "" {
				return failed("no command behind --: leave -- out to lead without one")
			}
			if err := r.check(cmd, argv); err != nil {
				return err
			}
			return r.run(campaign)
		},
	}
	r.flags(cmd.Flags())
	a.complete(cmd)
	return cmd
}
