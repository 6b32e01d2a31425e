package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// chart draws two panels on logarithmic axes: handoff latency against the
// number of waiters, throughput against the number of clients.
func (r *report) chart() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 940 400" font-family="sans-serif" font-size="12">` + "\n")
	b.WriteString(`<rect width="940" height="400" fill="white"/>` + "\n")
	r.panel(&b, 60, "Handoff, ms (waiters queued long ago)", "clients in the queue", func(v result) bool {
		return v.x > 0 && v.unit == "ms" && (strings.HasSuffix(v.what, "clients, waiters queued long ago") || v.row == "flat")
	})
	r.panel(&b, 530, "Handoffs per second, taking turns", "clients", func(v result) bool { return v.row == "turns" })
	b.WriteString("</svg>\n")
	return b.String()
}

const (
	panelWidth, panelHeight = 380.0, 270.0
	panelTop                = 50.0
)

var series = []struct {
	name, color string
	of          func(result) float64
}{
	{"floor", "#888888", func(v result) float64 { return v.floor }},
	{"etcdlock", "#1565c0", func(v result) float64 { return v.ours }},
	{"concurrency", "#c62828", func(v result) float64 { return v.theirs }},
}

func (r *report) panel(b *strings.Builder, left float64, title, axis string, in func(result) bool) {
	var points []result
	for _, v := range r.results {
		if in(v) && v.where == "1 member, idle" {
			points = append(points, v)
		}
	}
	slices.SortStableFunc(points, func(a, c result) int { return a.x - c.x })
	fmt.Fprintf(b, `<text x="%.0f" y="28" font-size="15">%s</text>`+"\n", left, title)
	if len(points) == 0 {
		fmt.Fprintf(b, `<text x="%.0f" y="100">not measured in this run</text>`+"\n", left)
		return
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range points {
		for _, s := range series {
			if y := s.of(v); y > 0 {
				low, high = min(low, y), max(high, y)
			}
		}
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	first, last := float64(points[0].x), float64(points[len(points)-1].x)
	bottom := panelTop + panelHeight
	px := func(x int) float64 { return left + panelWidth*place(float64(x), first, last) }
	py := func(y float64) float64 { return bottom - panelHeight*place(y, low, high) }

	for y := low; y <= high*1.001; y *= 10 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#dddddd"/>`, left, py(y), left+panelWidth, py(y))
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n", left-6, py(y)+4, number(y))
	}
	for _, v := range points {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%d</text>`+"\n", px(v.x), bottom+18, v.x)
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", left+panelWidth/2, bottom+38, axis)
	for k, s := range series {
		var line []string
		for _, v := range points {
			y := s.of(v)
			if y <= 0 {
				continue
			}
			line = append(line, fmt.Sprintf("%.1f,%.1f", px(v.x), py(y)))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s, %d: %s %s</title></circle>`+"\n",
				px(v.x), py(y), s.color, s.name, v.x, number(y), v.unit)
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(line, " "), s.color)
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", left+float64(k)*100, bottom+62, s.color, s.name)
	}
}

// place is where v lies between low and high on a logarithmic axis, 0 to 1.
func place(v, low, high float64) float64 {
	if high <= low {
		return 0.5
	}
	return (math.Log(v) - math.Log(low)) / (math.Log(high) - math.Log(low))
}
