package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/tests/internal/faultproxy"
)

// many holds 100,000 locks in one Session, 50 ms away from etcd, and says how
// many were lost, and what it costs the server that each of them is checked
// once per third of the TTL. concurrency checks none of its locks.
func many(ctx context.Context, e *env, r *report) error {
	n := e.pick(100000, 20000)
	const ttl = 15 * time.Second // the default
	proxy, err := faultproxy.New(e.endpoints[0])
	if err != nil {
		return err
	}
	defer proxy.Close()
	proxy.Delay(faultproxy.Both, 25*time.Millisecond)
	client, sent, err := newClient([]string{proxy.Addr()})
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(ttl))
	if err != nil {
		return err
	}
	defer s.Close()
	name := e.name("many")
	holds := make([]context.Context, n)
	const lockers = 512
	err = parallel(lockers, func(w int) error {
		for i := w; i < n; i += lockers {
			m := etcdlock.NewMutex(s, fmt.Sprintf("%s/%d/lock", name, i))
			if err := m.Lock(ctx); err != nil {
				return err
			}
			holds[i] = m.Context() //nolint:fatcontext // one for each lock: none is made from another
		}
		return nil
	})
	if err != nil {
		return err
	}
	pause(ctx, ttl/3)
	before, err := cpuSeconds(ctx, e.endpoints[0])
	if err != nil {
		return err
	}
	was := sent.snapshot()
	start := time.Now()
	pause(ctx, 3*ttl)
	took := time.Since(start)
	counted := sent.snapshot().sub(was)
	after, err := cpuSeconds(ctx, e.endpoints[0])
	if err != nil {
		return err
	}
	lost := 0
	for _, hold := range holds {
		if hold.Err() != nil {
			lost++
		}
	}
	what := fmt.Sprintf("%d locks of one session, 50 ms away, for three TTLs", n)
	r.add(result{row: "many", what: what, where: e.where(), unit: "lost", ours: float64(lost),
		goal: atMost(float64(lost), 0, "lost")})
	share := 100 * (after - before) / took.Seconds()
	r.add(result{row: "many", what: what, where: e.where(), unit: "% of a core of the server", ours: share,
		goal: atMost(share, 50, "%"), note: "requests per TTL/3: " + fmt.Sprint(float64(counted.total())/9) + "; all: " + counted.String()})
	return ctx.Err()
}

// cpuSeconds is the time that a member's process has had on all cores together.
func cpuSeconds(ctx context.Context, endpoint string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("%s/metrics: no process_cpu_seconds_total: %w", endpoint, lines.Err())
}
