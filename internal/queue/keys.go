package queue

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/rpc"
)

// Keys is where the tickets of one name are in etcd: the keys directly under it. Keys further down belong to names that
// nest in it.
type Keys struct {
	Name   string
	prefix string
}

// KeysOf returns the keys of a name.
func KeysOf(name string) Keys { return Keys{Name: name, prefix: name + "/"} }

// ticket is the key of a ticket. The word of its class comes first, and the weight if it has more than one.
func (k Keys) ticket(kind *Kind, id clientv3.LeaseID, n uint64) string {
	word := kind.Class.word
	if kind.Weight > 1 {
		word += fmt.Sprintf("w%d-", kind.Weight)
	}
	return fmt.Sprintf("%s%s%x-%d", k.prefix, word, id, n)
}

// lockOf is the name that a ticket of this key queues for, and what comes after it.
func lockOf(key string) (name, leaf string) {
	at := strings.LastIndexByte(key, '/')
	return key[:max(at, 0)], key[at+1:]
}

// Has reports whether key can be that of a ticket of the kind.
func (k Keys) Has(key string, kind *Kind) bool {
	return k.direct(key) && k.class(key) == kind.Class
}

// direct reports whether key is one of them.
func (k Keys) direct(key string) bool {
	leaf, ok := strings.CutPrefix(key, k.prefix)
	return ok && !strings.Contains(leaf, "/")
}

// class is that of the ticket that has this key.
func (k Keys) class(key string) Class {
	c, _ := Classify(strings.TrimPrefix(key, k.prefix))
	return c
}

// Contender is one ticket as etcd shows it, of whoever made it.
type Contender struct {
	Key     string
	Value   string
	Rev     int64 // create revision
	Mod     int64 // the revision of its value
	Version int64 // how often it was written
	Lease   clientv3.LeaseID
}

// Class says in words with whom the contender can share its turn: "" with nobody, "read", or "2 of 10".
func (c *Contender) Class() string {
	_, leaf := lockOf(c.Key)
	class, weight := Classify(leaf)
	switch class {
	case Exclusive:
		return ""
	case Reader:
		return "read"
	}
	return fmt.Sprintf("%d of %d", weight, class.limit)
}

func contender(kv *mvccpb.KeyValue) *Contender {
	return &Contender{
		Key: string(kv.Key), Value: string(kv.Value), Rev: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version,
		Lease: clientv3.LeaseID(kv.Lease),
	}
}

// List returns the contenders in order, as of the revision that it returns, by a linearizable read; and how many of them
// hold.
func (k Keys) List(ctx context.Context, c *rpc.Client) (all []*Contender, holders int, rev int64, err error) {
	resp, err := rpc.Retry(ctx, c, func(ctx context.Context) (*clientv3.GetResponse, error) {
		return c.Get(ctx, k.prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	})
	if err != nil {
		return nil, 0, 0, err
	}
	for _, kv := range resp.Kvs {
		if k.direct(string(kv.Key)) {
			all = append(all, contender(kv))
		}
	}
	return all, k.holders(all), resp.Header.Revision, nil
}

// holders is how many of them hold, the first so many of the queue.
func (k Keys) holders(queue []*Contender) int {
	return holders(len(queue), func(i int) (Class, int64) { return Classify(queue[i].Key[len(k.prefix):]) })
}
