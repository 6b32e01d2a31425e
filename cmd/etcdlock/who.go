package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const aboutWho = `Show who has each lock, and who waits for it, in the order of their turns.

It asks etcd by a read, and takes no part. Whoever holds by other clients is shown, too.`

func (a *app) whoCommand() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use: "who [flags] NAME...", Short: "Show who has a lock, and who waits", Long: aboutWho,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) == 0 {
				return failed("%s", nameNeeded(cmd, names))
			}
			if watch && len(names) > 1 {
				return failed("--watch follows one name, not %d", len(names))
			}
			g := newGate()
			client, err := a.conn.client(g.ctx)
			if err == nil {
				defer client.Close() //nolint:errcheck // all has been read
			}
			if err == nil {
				err = g.unlessSignalled(func() error { // stdout may have no reader
					if watch {
						return a.watch(g, client, names[0], asJSON)
					}
					return a.who(g.ctx, client, names, asJSON)
				})
			}
			if end := g.signalled(); end != nil {
				return end
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object for each name: {name, holders, waiters}")
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again whenever it changes, until a signal")
	a.complete(cmd)
	return cmd
}

func (a *app) lsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls [flags] PREFIX", Short: "List the locks that somebody has or waits for",
		Long: "List the names that begin with PREFIX and that somebody holds or waits for. \"\" lists all.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return failed("it takes one prefix, such as %s /cron/; \"\" lists all", cmd.CommandPath())
			}
			client, err := a.conn.client(context.Background())
			if err != nil {
				return err
			}
			defer client.Close() //nolint:errcheck // all has been read
			return a.asked(context.Background(), client, func(ctx context.Context) error {
				kvs, _, err := read(ctx, client, args[0])
				if err != nil {
					return err
				}
				var all []state
				for _, n := range names(args[0], kvs) {
					all = append(all, stateOf(n, kvs))
				}
				return show(os.Stdout, all, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object for each name: {name, holders, waiters}")
	a.complete(cmd)
	return cmd
}

// asked asks etcd once, and says why there was no answer.
func (a *app) asked(ctx context.Context, client *clientv3.Client, ask func(context.Context) error) error {
	actx, cancel := context.WithTimeout(ctx, a.conn.commandTimeout)
	defer cancel()
	switch err := ask(actx); {
	case err == nil:
		return nil
	case errors.Is(actx.Err(), context.DeadlineExceeded):
		return failed("no answer from %s within %v (--command-timeout)", strings.Join(client.Endpoints(), ", "), a.conn.commandTimeout)
	default:
		return failed("%w", err)
	}
}

func (a *app) who(ctx context.Context, client *clientv3.Client, names []string, asJSON bool) error {
	return a.asked(ctx, client, func(ctx context.Context) error {
		var all []state
		for _, n := range names {
			kvs, _, err := read(ctx, client, n+"/")
			if err != nil {
				return err
			}
			all = append(all, stateOf(n, kvs))
		}
		return show(os.Stdout, all, asJSON)
	})
}

// watch shows the queue of name, and again whenever it changes.
func (a *app) watch(g *gate, client *clientv3.Client, name string, asJSON bool) error {
	var last *state
	for g.ctx.Err() == nil {
		var rev int64
		err := a.asked(g.ctx, client, func(ctx context.Context) error {
			kvs, at, err := read(ctx, client, name+"/")
			if err != nil {
				return err
			}
			st := stateOf(name, kvs)
			rev = at
			if last != nil && reflect.DeepEqual(*last, st) {
				return nil
			}
			last = &st
			return show(os.Stdout, []state{st}, asJSON)
		})
		if err != nil {
			return err
		}
		wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(g.ctx))
		for resp := range client.Watch(wctx, name+"/", clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
			if len(resp.Events) > 0 || resp.Canceled {
				break // read it again: of how it came about only the last state counts
			}
		}
		cancel()
	}
	return nil
}

// show writes queues: as a table, or one JSON object a line.
func show(w io.Writer, all []state, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		for _, st := range all {
			if err := enc.Encode(st); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tIDENTITY\tTOKEN\tLEASE\tKEY")
	for _, st := range all {
		if len(st.Holders) == 0 {
			fmt.Fprintf(t, "%s\tfree\t\t\t\t\n", plainly(st.Name))
		}
		for _, c := range st.Holders {
			row(t, st.Name, "holds", c)
		}
		for _, c := range st.Waiters {
			row(t, st.Name, "waits", c)
		}
	}
	return t.Flush()
}

func row(t io.Writer, name, state string, c contender) {
	if c.Class != "" {
		state += " (" + c.Class + ")"
	}
	identity := c.Identity
	if identity == "" {
		identity = "-" // of etcd's own clients, which write none
	}
	fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", plainly(name), state, plainly(identity), c.Token, c.Lease, plainly(c.Key))
}

// plainly is text for a row of a table. What would break the row, or tell the terminal something, is shown in quotes.
func plainly(text string) string {
	if utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	return strconv.Quote(text)
}
