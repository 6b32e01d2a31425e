package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

// markdown is the whole table, one line a result.
func (r *report) markdown() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Written by `go run -C tests ./bench %s`; do not edit. -->\n\n", r.args)
	fmt.Fprintf(&b, "Run on %s with etcd %s, %s, %s/%s, %d CPUs; it took %s. Times are medians. ",
		time.Now().UTC().Format("2006-01-02"), repo.EtcdVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), r.took.Round(time.Second))
	if r.load != "" {
		fmt.Fprintf(&b, "Load averages of the machine, before and after: %s. ", r.load)
	}
	fmt.Fprintf(&b, "\"Busy\" is beside %d unrelated writes a second. Notes give floor / etcdlock / concurrency, or the last two.\n\n", writesPerSecond)
	b.WriteString("| what | where | unit | floor | etcdlock | concurrency | ÷ floor | ÷ concurrency | target | reached | |\n")
	b.WriteString("|---|---|---|--:|--:|--:|--:|--:|---|--:|---|\n")
	for _, v := range r.results {
		goal, reached := v.goal.text, ""
		if goal != "" {
			reached = number(v.goal.value)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n",
			v.what, v.where, v.unit, cell(v.floor, v.noFloor()), number(v.ours), number(v.theirs),
			cell(ratio(v.ours, v.floor), v.noFloor()), cell(ratio(v.ours, v.theirs), v.theirs == 0),
			goal, reached, strings.TrimSpace(v.goal.verdict()+" "+v.note))
	}
	return b.String()
}

func (v result) noFloor() bool { return v.floor == 0 }

func cell(v float64, blank bool) string {
	if blank {
		return ""
	}
	return number(v)
}

// loadAverage says how busy the machine is, where that can be read: times
// measured on a machine that does other things as well are only good as ratios.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:1], "")
}
