package main

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// This file reads the queues of locks, without being in one: a read is all that it asks of etcd.

// contender is one place in a queue.
type contender struct {
	Key      string `json:"key"`
	Identity string `json:"identity"` // the value: of an election, what the candidate stands with
	Token    int64  `json:"token"`
	Lease    string `json:"lease"`           // "0": a key that somebody put by hand, which nothing will expire
	Class    string `json:"class,omitempty"` // with whom it can share its turn: "read", "2 of 10"
}

// state is the queue of one name.
type state struct {
	Name    string      `json:"name"`
	Holders []contender `json:"holders"`
	Waiters []contender `json:"waiters"`
}

// pageSize is how many keys one read asks for.
const pageSize = 1000

// read returns the keys under prefix as of one revision, in as many reads as that takes.
func read(ctx context.Context, c *clientv3.Client, prefix string) (kvs []*mvccpb.KeyValue, rev int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	if prefix == "" {
		from, end = "\x00", "\x00"
	}
	for {
		resp, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, err
		}
		kvs, rev = append(kvs, resp.Kvs...), max(rev, resp.Header.Revision)
		if !resp.More {
			return kvs, rev, nil
		}
		from = string(kvs[len(kvs)-1].Key) + "\x00"
	}
}

// stateOf is the queue of name, of all that is under it.
func stateOf(name string, kvs []*mvccpb.KeyValue) state {
	kvs = slices.DeleteFunc(slices.Clone(kvs), func(kv *mvccpb.KeyValue) bool {
		leaf, ok := strings.CutPrefix(string(kv.Key), name+"/")
		return !ok || strings.Contains(leaf, "/") // of a name that nests in it
	})
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return int(a.CreateRevision - b.CreateRevision) })
	st := state{Name: name, Holders: []contender{}, Waiters: []contender{}}
	var leaves []string
	for _, kv := range kvs {
		leaves = append(leaves, string(kv.Key)[len(name)+1:])
	}
	holders := queue.Holders(leaves)
	for i, kv := range kvs {
		c := contender{
			Key: string(kv.Key), Identity: string(kv.Value), Token: kv.CreateRevision,
			Lease: leaseID(clientv3.LeaseID(kv.Lease)), Class: (&queue.Contender{Key: string(kv.Key)}).Class(),
		}
		if i < holders {
			st.Holders = append(st.Holders, c)
		} else {
			st.Waiters = append(st.Waiters, c)
		}
	}
	return st
}

// names are the locks that somebody has or waits for among the keys under prefix, in order: those that have a ticket. A name
// that prefix is longer than is none of them: a part of its queue says nothing of who holds.
func names(prefix string, kvs []*mvccpb.KeyValue) []string {
	var all []string
	for _, kv := range kvs {
		key := string(kv.Key)
		at := strings.LastIndexByte(key, '/')
		if at < len(prefix) {
			continue
		}
		if at > 0 && kv.Lease != 0 && isTicket(key[at+1:], leaseID(clientv3.LeaseID(kv.Lease))) {
			all = append(all, key[:at])
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// moved is the end of a ticket's key as this library names it: a lease, as etcd numbers them at random, and a number.
var moved = regexp.MustCompile(`^(?:.*-)?[0-9a-f]{12,16}-[1-9][0-9]*$`)

// isTicket reports whether the last part of a key is that of a ticket on a lease: it bears the lease's number; or another's, if
// it was taken up by another Session, or stays for a while after its hold, which moves it to another lease.
func isTicket(leaf, lease string) bool {
	return slices.Contains(strings.Split(leaf, "-"), lease) || moved.MatchString(leaf)
}
