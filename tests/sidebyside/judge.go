//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// changeLine makes an overlay in which one import line of the source is changed.
func changeLine(dir, source string) (overlay string, err error) {
	path, err := filepath.Abs(source)
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	const was, is = `"go.etcd.io/etcd/client/v3/concurrency"`, `"github.com/etcdlock/etcdlock/concurrency"`
	if n := bytes.Count(text, []byte(was)); n != 1 {
		return "", fmt.Errorf("%s has %d lines with %s, not one", source, n, was)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, bytes.Replace(text, []byte(was), []byte(is), 1), 0o644); err != nil {
		return "", err
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o644)
}

// judge reads the history of the store.
type judge struct {
	client *clientv3.Client
	from   int64                 // the revision to go on at
	queues map[string]contenders // by what: who is in each queue
}

// contenders are the create revisions of the tickets in a queue, by key.
type contenders map[string]int64

func newJudge(client *clientv3.Client) *judge {
	return &judge{client: client, from: 1, queues: map[string]contenders{"mutex": {}, "election": {}}}
}

// upTo judges what was written until now. Each of the kinds has to have held, both the mutex and the election.
func (j *judge) upTo(ctx context.Context, phase string, kinds []string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	last, err := j.client.Put(ctx, "judge", phase)
	if err != nil {
		return err
	}
	held := map[string]map[string]int{}
	for resp := range j.client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(j.from)) {
		if err := resp.Err(); err != nil {
			return err
		}
		for _, ev := range resp.Events {
			if err := j.take(ev, held); err != nil {
				return err
			}
			if ev.Kv.ModRevision >= last.Header.Revision {
				j.from = last.Header.Revision + 1
				return j.report(phase, kinds, held)
			}
		}
	}
	return fmt.Errorf("the history of %q was not to be had in time", phase)
}

// take is one event. A write under a guard has to be of whoever is first.
func (j *judge) take(ev *clientv3.Event, held map[string]map[string]int) error {
	key := string(ev.Kv.Key)
	if what, ok := strings.CutPrefix(key, "side/"); ok {
		what, _, _ = strings.Cut(what, "/")
		if ev.Type == mvccpb.DELETE {
			delete(j.queues[what], key)
		} else {
			j.queues[what][key] = ev.Kv.CreateRevision
		}
		return nil
	}
	what, ok := strings.CutPrefix(key, "work/")
	if !ok {
		return nil
	}
	id, ticket, _ := strings.Cut(string(ev.Kv.Value), " ")
	mine, there := j.queues[what][ticket]
	if !there {
		return fmt.Errorf("revision %d: %s wrote as %s without its ticket %s", ev.Kv.ModRevision, id, what, ticket)
	}
	for other, rev := range j.queues[what] {
		if rev < mine {
			return fmt.Errorf("revision %d: two hold %s: %s wrote by %s of %d, and %s of %d is before it",
				ev.Kv.ModRevision, what, id, ticket, mine, other, rev)
		}
	}
	kind, _, _ := strings.Cut(id, "-")
	if held[what] == nil {
		held[what] = map[string]int{}
	}
	held[what][kind]++
	return nil
}

func (j *judge) report(phase string, kinds []string, held map[string]map[string]int) error {
	for what := range j.queues {
		fmt.Printf("%s: %s: writes under a hold: %d of old, %d of new\n", phase, what, held[what]["old"], held[what]["new"])
		for _, kind := range kinds {
			if held[what][kind] == 0 {
				return fmt.Errorf("%s: no %s worker ever held the %s", phase, kind, what)
			}
		}
	}
	return nil
}

// nothingLeft waits until leases that nobody gave back have run out, and looks.
func (j *judge) nothingLeft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		keys, err := j.client.Get(ctx, "side/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			return fmt.Errorf("is anything left? %w", err)
		}
		leases, err := j.client.Leases(ctx)
		if err != nil {
			return fmt.Errorf("is anything left? %w", err)
		}
		if len(keys.Kvs) == 0 && len(leases.Leases) == 0 {
			fmt.Println("no two tickets held, and nothing is left")
			return nil
		}
		if pause(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("%d tickets and %d leases are left", len(keys.Kvs), len(leases.Leases))
		}
	}
}
