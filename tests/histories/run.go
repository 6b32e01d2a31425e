package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/embedded"
	"github.com/etcdlock/etcdlock/tests/internal/cluster"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// options say what to run.
type options struct {
	seed     uint64
	duration time.Duration
	ttl      time.Duration
	members  int
	linger   time.Duration // of some Sessions
	machines int           // of ours; one more is concurrency's
	bug      string
	inside   bool      // etcd and the machines in this process: quick, but nothing to freeze or kill
	out      io.Writer // records as JSON lines, if not nil
	tell     func(format string, args ...any)
}

// run makes a history and returns it with what the checks found.
func run(ctx context.Context, opt options) (_ *history, _ []finding, err error) {
	st := &stage{ttl: opt.ttl, tell: opt.tell}
	var endpoints []string
	if opt.inside {
		etcd, err := embedded.Start(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer etcd.Close()
		endpoints = etcd.Endpoints()
	} else {
		if st.cluster, err = cluster.Start(ctx, cluster.Options{Members: opt.members}); err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, st.cluster.Close()) }()
		endpoints = st.cluster.Endpoints()
	}
	if st.operator, err = cluster.NewClient(endpoints...); err != nil {
		return nil, nil, err
	}
	defer st.operator.Close()
	if st.log, err = followEvents(ctx, endpoints); err != nil {
		return nil, nil, err
	}
	defer st.log.close()

	h := newHistory(st.log)
	var mu sync.Mutex // guards h and found until the machines have ended
	var found []finding
	var enc *json.Encoder
	if opt.out != nil {
		enc = json.NewEncoder(opt.out)
	}
	take := func(r record) {
		mu.Lock()
		defer mu.Unlock()
		h.add(r)
		if enc != nil {
			_ = enc.Encode(r)
		}
	}
	failed := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		found = append(found, finding{"machines", err.Error()})
	}

	var cfgs []machineConfig
	for i := range opt.machines + 1 {
		cfg := machineConfig{
			ID: fmt.Sprintf("%d", i), Seed: opt.seed, TTL: opt.ttl, Linger: opt.linger, Bug: opt.bug, Foreign: i == opt.machines}
		var links []*faultproxy.Proxy
		for _, ep := range endpoints {
			p, err := faultproxy.New(ep)
			if err != nil {
				return nil, nil, err
			}
			defer p.Close()
			links = append(links, p)
			cfg.Endpoints = append(cfg.Endpoints, p.Addr())
		}
		st.links = append(st.links, links)
		cfgs = append(cfgs, cfg)
	}
	end, err := st.machines(ctx, opt, cfgs, take, failed)
	if err != nil {
		return nil, nil, err
	}
	faults := schedule(opt.seed, opt.duration, surroundings{
		machines: len(cfgs), members: len(endpoints), servers: !opt.inside, clients: !opt.inside, ttl: opt.ttl,
		names: append([]string{election}, namesOf(opt.linger)...)})
	begin := time.Now()
	st.play(ctx, faults)
	pause(ctx, time.Until(begin.Add(opt.duration)))
	if err := st.heal(ctx); err != nil {
		failed(err)
	}
	end()
	left, err := st.leftovers(ctx, 3*opt.ttl)
	if err != nil {
		return nil, nil, err
	}
	for _, key := range left {
		found = append(found, finding{"left behind", key})
	}
	if err := st.log.catchUp(ctx, st.operator); err != nil {
		return nil, nil, err
	}
	h.removals, h.thaws, h.stops = st.removals, st.thaws, st.stops
	return h, append(found, h.check(opt.ttl)...), ctx.Err()
}

// machines starts the machines, in this process or each in its own. The function that it returns ends them.
func (st *stage) machines(ctx context.Context, opt options, cfgs []machineConfig, take func(record), failed func(error)) (end func(), _ error) {
	if !opt.inside {
		for _, cfg := range cfgs {
			p := &process{cfg: cfg, take: take, lost: failed}
			if err := p.start(); err != nil {
				return nil, err
			}
			st.clients = append(st.clients, p)
		}
		return func() {
			var wg sync.WaitGroup
			for _, p := range st.clients {
				wg.Go(func() {
					if err := p.end(time.Minute); err != nil {
						failed(err)
					}
				})
			}
			wg.Wait()
		}, nil
	}
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, cfg := range cfgs {
		wg.Go(func() {
			r, w := io.Pipe()
			var reading sync.WaitGroup
			reading.Go(func() {
				lines := json.NewDecoder(r)
				for {
					var rec record
					if lines.Decode(&rec) != nil {
						return
					}
					take(rec)
				}
			})
			if err := cfg.run(ctx, stop, newRecorder(w)); err != nil {
				failed(err)
			}
			w.Close()
			reading.Wait()
		})
	}
	return func() { cancel(); wg.Wait() }, nil
}
