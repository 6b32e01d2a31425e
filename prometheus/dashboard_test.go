package etcdlockprom

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

// series are the names that a scrape has, those of histograms with their suffixes, and the labels of each.
func series(t *testing.T) (labels map[string][]string) {
	t.Helper()
	labels = map[string][]string{}
	inBubble(t, func(w *world) {
		s := w.session()
		m := etcdlock.NewMutex(s, "a")
		require.NoError(t, m.Lock(context.Background()))
		require.NoError(t, m.Unlock(context.Background()))
		time.Sleep(time.Minute)
		synctest.Wait()
		reg := prometheus.NewRegistry()
		require.NoError(t, reg.Register(w.metrics))
		families, err := reg.Gather()
		require.NoError(t, err)
		for _, f := range families {
			m := f.GetMetric()[0]
			own := []string{"job", "instance"}
			for _, l := range m.GetLabel() {
				own = append(own, l.GetName())
			}
			if m.GetHistogram() == nil {
				labels[f.GetName()] = own
				continue
			}
			labels[f.GetName()+"_count"], labels[f.GetName()+"_sum"] = own, own
			labels[f.GetName()+"_bucket"] = append(own, "le")
		}
	})
	return labels
}

var (
	selector = regexp.MustCompile(`(etcdlock_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	legend   = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// check looks whether what an expression asks for is there, and returns the names.
func check(t *testing.T, labels map[string][]string, expr string) (names []string) {
	t.Helper()
	var own []string
	for _, m := range selector.FindAllStringSubmatch(expr, -1) {
		require.Containsf(t, labels, m[1], "in %s", expr)
		own = labels[m[1]]
		names = append(names, m[1])
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			require.Containsf(t, own, l[1], "%s has no such label, in %s", m[1], expr)
		}
	}
	require.NotEmptyf(t, names, "%s asks for nothing of ours", expr)
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.Split(m[1], ", ") {
			require.Containsf(t, own, l, "no such label to group by, in %s", expr)
		}
	}
	return names
}

func TestTheDashboardAsksForWhatThereIs(t *testing.T) {
	var board struct {
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &board))
	labels := series(t)
	shown := map[string]bool{}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], "panel %d is there twice", p.ID)
		ids[p.ID] = true
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			names := check(t, labels, target.Expr)
			for _, name := range names {
				shown[family(name)] = true
			}
			left := labels[names[len(names)-1]] // labels that the expression leaves
			if by := grouping.FindAllStringSubmatch(target.Expr, -1); by != nil {
				left = strings.Split(by[0][1], ", ")
			}
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				require.Containsf(t, left, m[1], "a legend with a label that is not there, of %s", target.Expr)
			}
		}
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Emptyf(t, cells[cell], "%s lies over it", p.Title)
				cells[cell] = p.Title
			}
		}
	}
	for name := range labels {
		require.Truef(t, shown[family(name)], "no panel shows %s", name)
	}
	variables := regexp.MustCompile(`\$(\w+)|\$\{(\w+)\}`)
	for _, m := range variables.FindAllStringSubmatch(string(text), -1) {
		name := m[1] + m[2]
		known := strings.HasPrefix(name, "__")
		for _, v := range board.Templating.List {
			known = known || v.Name == name
		}
		require.Truef(t, known, "no such variable: %s", m[0])
	}
	for _, v := range board.Templating.List {
		if v.Type == "query" {
			check(t, labels, v.Definition)
		}
	}
}

// family is the metric that a series is of.
func family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

// The page names metrics, in alerts above all: they are those of this package, with those labels.
func TestThePageOnWatchingNamesWhatThereIs(t *testing.T) {
	page, err := os.ReadFile("../docs/watching.md")
	require.NoError(t, err)
	labels := series(t)
	for _, m := range selector.FindAllString(string(page), -1) {
		if slices.ContainsFunc([]string{"_bucket", "_sum", "_count"}, func(s string) bool { return strings.HasSuffix(m, s) }) ||
			labels[m] != nil || strings.Contains(m, "{") {
			check(t, labels, m)
			continue
		}
		require.Containsf(t, labels, m+"_count", "%s of docs/watching.md", m) // a histogram by its family name
	}
}
