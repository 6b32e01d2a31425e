package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// serverCounts are what one member says it has done so far.
type serverCounts struct {
	commits   float64 // raft entries committed
	revisions float64 // the store's revision
	fsyncs    float64 // of the write-ahead log
}

func (a serverCounts) sub(b serverCounts) serverCounts {
	return serverCounts{a.commits - b.commits, a.revisions - b.revisions, a.fsyncs - b.fsyncs}
}

func (a *serverCounts) add(b serverCounts) {
	a.commits += b.commits
	a.revisions += b.revisions
	a.fsyncs += b.fsyncs
}

func scrape(ctx context.Context, endpoint string) (serverCounts, error) {
	var s serverCounts
	want := map[string]*float64{
		"etcd_server_proposals_committed_total":      &s.commits,
		"etcd_debugging_mvcc_current_revision":       &s.revisions,
		"etcd_disk_wal_fsync_duration_seconds_count": &s.fsyncs,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/metrics", nil)
	if err != nil {
		return s, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	found := 0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if p := want[name]; ok && p != nil {
			if *p, err = strconv.ParseFloat(value, 64); err != nil {
				return s, err
			}
			found++
		}
	}
	if err := lines.Err(); err != nil {
		return s, err
	}
	// A counter that a server renamed would silently read as 0.
	if found != len(want) {
		return s, fmt.Errorf("%s/metrics: %d of %d counters found", endpoint, found, len(want))
	}
	return s, nil
}
