package main

import (
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"
)

// app is one call of the program.
type app struct {
	say  *sayer
	conn connection

	quiet     bool
	verbose   int
	logFormat string
}

const about = `Run a command under a lock in etcd, and end it in time when the lock is lost.

  etcdlock run /cron/lock/job9 -- backup --full

Everybody who takes the name /cron/lock/job9 takes turns, on every machine, first
come, first served: etcdlock, programs with the library of the same name,
etcdctl lock, and etcd's concurrency package.`

// root is the program with all its commands.
func (a *app) root() *cobra.Command {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, a.say)) // what matters comes back as an error
	root := &cobra.Command{
		Use: "etcdlock", Long: about, Version: version(),
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				near := cmd.SuggestionsFor(args[0])
				if len(near) > 0 {
					return failed("no command %q: did you mean %s?", args[0], strings.Join(near, " or "))
				}
				return failed("no command %q: etcdlock --help lists them", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.PersistentFlags().AddFlagSet(a.conn.flags())
	root.PersistentFlags().SortFlags = false
	root.Flags().SortFlags = false
	words := pflag.NewFlagSet("words", pflag.ContinueOnError)
	words.CountVarP(&a.verbose, "verbose", "v", "say more: who is waited for, when the lock is held; -vv even more")
	words.BoolVarP(&a.quiet, "quiet", "q", false, "say only what is an error; exit codes tell the rest")
	words.StringVar(&a.logFormat, "log-format", "text", "`FORMAT` of what etcdlock itself says on stderr: text or json")
	root.PersistentFlags().AddFlagSet(words)
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usage)
	root.SetVersionTemplate("etcdlock {{.Version}}\n")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.logFormat != "text" && a.logFormat != "json" {
			return failed("--log-format %q: it takes text or json", a.logFormat)
		}
		return fromEnvironment(a.connectionFlags(cmd))
	}
	_ = root.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	for _, cmd := range []*cobra.Command{a.runCommand(), a.holdCommand(), a.electCommand(), a.whoCommand(), a.lsCommand(), a.releaseCommand()} {
		cmd.DisableFlagsInUseLine = true
		cmd.Flags().SortFlags = false
		root.AddCommand(cmd)
	}
	return root
}

// connectionFlags is those of cmd's flags that have a variable in the environment.
func (a *app) connectionFlags(cmd *cobra.Command) *pflag.FlagSet {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	names := (&connection{}).flags()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if names.Lookup(f.Name) != nil {
			own.AddFlag(f)
		}
	})
	return own
}

// version is that of the module, as the Go command has stamped it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
