package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// usage is what --help shows below the text about a command. The flags for the connection are etcdctl's, and long: help
// of the program has them, that of a command says so.
const usage = `Usage:
  {{if .HasParent}}{{.UseLine}}{{else}}{{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{with index .Annotations "codes"}}

{{.}}{{end}}

{{if .HasParent}}Flags for the connection to etcd are etcdctl's, as are their ETCDCTL_ variables: etcdlock --help.
{{else}}Flags of every command; those for the connection are etcdctl's, and have its variables, such as
ETCDCTL_ENDPOINTS and ETCDCTL_USER:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}

etcdlock COMMAND --help tells more about a command.
{{end}}`

// completionLimit is how long a completion may ask etcd for.
const completionLimit = time.Second

// complete completes the names of locks from etcd, and the values of flags that have a few.
func (a *app) complete(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && cmd.Name() != "who" {
			return nil, cobra.ShellCompDirectiveDefault // of a command, or of a value
		}
		if fromEnvironment(a.connectionFlags(cmd)) != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		a.conn.spec.DialTimeout = completionLimit
		ctx, cancel := context.WithTimeout(context.Background(), completionLimit)
		defer cancel()
		client, err := a.conn.client(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		defer client.Close() //nolint:errcheck // nothing was asked but a read
		kvs, _, err := read(ctx, client, begun)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names(begun, kvs), cobra.ShellCompDirectiveNoFileComp
	}
	for flag, values := range map[string][]string{
		"on-lost": {"kill", "term", "ignore"},
		"signal":  {"TERM", "INT", "HUP", "QUIT", "USR1", "USR2"},
	} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}
