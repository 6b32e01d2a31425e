package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const aboutRelease = `Remove one ticket from the queue of NAME, whoever's it is: exactly the one with that key and that
token, as etcdlock who shows them. A later ticket of the same key is never touched.

If it holds, the next one in the queue gets the lock at once. Its holder notices within a third
of its TTL and a round trip, mostly at once, and a command under etcdlock run is killed then. So
make sure first that whoever holds is gone, or does no harm.`

func (a *app) releaseCommand() *cobra.Command {
	var key string
	var token int64
	cmd := &cobra.Command{
		Use: "release NAME --ticket KEY --token TOKEN", Short: "Remove one ticket of a lock, by an operator", Long: aboutRelease,
		Example:     "  etcdlock release /cron/lock/job9 --ticket /cron/lock/job9/694d9ab1c2d3e4f5-1 --token 42",
		Annotations: map[string]string{"codes": "Exit codes: 0 removed, 123 not there: released, lost or removed before, 125 etcdlock failed."},
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) != 1 {
				return failed("%s", nameNeeded(cmd, names))
			}
			if key == "" || token <= 0 {
				return failed("it needs --ticket and --token, so that no other hold is removed: etcdlock who %s shows them", names[0])
			}
			if leaf, ok := strings.CutPrefix(key, names[0]+"/"); !ok || leaf == "" || strings.Contains(leaf, "/") {
				return failed("--ticket %q is no ticket of %s: etcdlock who %s shows them", key, names[0], names[0])
			}
			client, err := a.conn.client(context.Background())
			if err != nil {
				return err
			}
			defer client.Close() //nolint:errcheck // what was asked is answered
			return a.asked(context.Background(), client, func(ctx context.Context) error {
				resp, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", token)).
					Then(clientv3.OpDelete(key)).Commit()
				if err == nil && !resp.Succeeded {
					err = errNotThere
				}
				return err
			})
		},
	}
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		err := run(cmd, names)
		if errors.Is(err, errNotThere) {
			return &ending{exitLost, fmt.Errorf("no ticket %s with token %d: released, lost or removed before", key, token)}
		}
		return err
	}
	cmd.Flags().StringVar(&key, "ticket", "", "`KEY` of the ticket")
	cmd.Flags().Int64Var(&token, "token", 0, "its `TOKEN`")
	a.complete(cmd)
	return cmd
}

var errNotThere = errors.New("not there")
