package main

import (
	"context"
	"errors"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/tests/internal/cluster"
)

// change is one event of etcd's own: the truth that the machines' records are held against.
type change struct {
	Rev    int64
	Key    string
	Value  string
	Create int64 // 0 for a deletion
	Lease  int64
	Seen   int64 // when the first of the watches told of it: not before it happened
}

// eventLog follows everything under two prefixes, with one watch on each member, past the proxies: a member that is
// frozen or down holds up its own watch alone.
type eventLog struct {
	clients []*clientv3.Client
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu   sync.Mutex
	seen map[string]map[int64]*change // by key and revision
	rev  int64                        // the newest of them
}

func followEvents(ctx context.Context, endpoints []string) (*eventLog, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &eventLog{stop: cancel, seen: make(map[string]map[int64]*change)}
	for _, ep := range endpoints {
		client, err := cluster.NewClient(ep)
		if err != nil {
			l.close()
			return nil, err
		}
		l.clients = append(l.clients, client)
		for _, prefix := range []string{root, guardedFor} {
			l.wg.Go(func() { l.follow(ctx, client, prefix) })
		}
	}
	return l, nil
}

func (l *eventLog) close() {
	l.stop()
	l.wg.Wait()
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// follow watches from the first revision on. What was compacted away while this member was down, another told.
func (l *eventLog) follow(ctx context.Context, client *clientv3.Client, prefix string) {
	next := int64(1)
	for ctx.Err() == nil {
		wctx, cancel := context.WithCancel(ctx)
		for resp := range client.Watch(wctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(next)) {
			if errors.Is(resp.Err(), rpctypes.ErrCompacted) {
				next = resp.CompactRevision
			}
			for _, ev := range resp.Events {
				l.add(ev)
				next = ev.Kv.ModRevision + 1
			}
		}
		cancel()
		pause(ctx, 20*time.Millisecond)
	}
}

func (l *eventLog) add(ev *clientv3.Event) {
	now := clock()
	key, rev := string(ev.Kv.Key), ev.Kv.ModRevision
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen[key] == nil {
		l.seen[key] = make(map[int64]*change)
	}
	if l.seen[key][rev] != nil {
		return
	}
	c := &change{Rev: rev, Key: key, Seen: now}
	if ev.Type == mvccpb.PUT {
		c.Create, c.Value, c.Lease = ev.Kv.CreateRevision, string(ev.Kv.Value), ev.Kv.Lease
	}
	l.seen[key][rev] = c
	l.rev = max(l.rev, rev)
}

// newest is the newest revision known.
func (l *eventLog) newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rev
}

// changes returns what happened to the keys directly under name/, in order.
func (l *eventLog) changes(name string) []change {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []change
	for key, byRev := range l.seen {
		if leaf, ok := strings.CutPrefix(key, name+"/"); !ok || strings.Contains(leaf, "/") {
			continue
		}
		for _, c := range byRev {
			all = append(all, *c)
		}
	}
	return inOrder(all)
}

// of returns what happened to one key, in order.
func (l *eventLog) of(key string) []change {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []change
	for _, c := range l.seen[key] {
		all = append(all, *c)
	}
	return inOrder(all)
}

func inOrder(all []change) []change {
	sort.Slice(all, func(i, j int) bool {
		if all[i].Rev != all[j].Rev {
			return all[i].Rev < all[j].Rev
		}
		return all[i].Key < all[j].Key
	})
	return all
}

// catchUp returns once the watches have told everything that had happened when it was called.
func (l *eventLog) catchUp(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	resp, err := client.Put(ctx, root+"last", "") // every watch shows it, after all that was before it
	for err != nil && ctx.Err() == nil {
		resp, err = client.Put(ctx, root+"last", "")
	}
	if err != nil {
		return err
	}
	for l.newest() < resp.Header.Revision {
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return errors.New("the watches do not catch up with etcd")
		}
	}
	return nil
}
