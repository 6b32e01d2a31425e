// Command testjson reads the output of `go test -json`, shows what failed, and fails on a failed, a skipped or a
// missing test: a test that skips itself proves nothing and looks like one that passed.
//
//	go test -json ./... | go run .ci/testjson.go
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// report is what has been read so far. Output is kept by who said it, a package or one of its tests, until that has passed.
type report struct {
	output          map[string][]string
	failed, skipped []string
	passed          int
}

func main() {
	r := report{output: map[string][]string{}}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		var e event
		switch {
		case strings.TrimSpace(line) == "":
		case json.Unmarshal([]byte(line), &e) != nil:
			fmt.Print(line) // the go command's own words
		default:
			r.take(e)
		}
		if err != nil {
			break
		}
	}
	for _, who := range r.skipped {
		fmt.Printf("SKIP  %s\n%s\n", who, strings.Join(r.output[who], ""))
	}
	fmt.Printf("%d tests passed, %d failed, %d skipped\n", r.passed, len(r.failed), len(r.skipped))
	if len(r.failed)+len(r.skipped) > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *report) take(e event) {
	who := e.Package + e.ImportPath + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.output[who] = append(r.output[who], e.Output)
	case "pass":
		if e.Test != "" {
			r.passed++
		} else {
			fmt.Printf("ok    %s  %.1fs\n", e.Package, e.Elapsed)
		}
		delete(r.output, who)
	case "skip":
		if e.Test != "" { // without one it is a package that has no tests
			r.skipped = append(r.skipped, who)
		}
	case "fail", "build-fail":
		r.failed = append(r.failed, who)
		fmt.Printf("FAIL  %s  %.1fs\n%s\n", who, e.Elapsed, cut(r.output[who]))
		delete(r.output, who)
		if e.Test == "" {
			r.unended(e.Package + " ")
		}
	}
}

// unended shows what those tests said last that had begun in a package that failed, and never ended: if its process crashed
// or was killed, that is in what one of them said, whichever ran, and no test has failed.
func (r *report) unended(prefix string) {
	for _, who := range slices.Sorted(maps.Keys(r.output)) {
		if strings.HasPrefix(who, prefix) && !slices.Contains(r.skipped, who) {
			fmt.Printf("      %s had not ended:\n%s\n", who, cut(r.output[who]))
		}
	}
}

// crash is how the words of a process begin that ends otherwise than by its own will.
var crash = regexp.MustCompile(`^(panic: |fatal error: |fatal: |unexpected fault address|SIG[A-Z]+: |\[signal |ThreadSanitizer|==+$|WARNING: DATA RACE|runtime: |exit status |signal: )`)

// cut joins lines, of very many those at which a crash begins and the last ones.
func cut(lines []string) string {
	const before, after, last = 20, 300, 50
	if len(lines) <= before+after+last {
		return strings.Join(lines, "")
	}
	from := max(slices.IndexFunc(lines, crash.MatchString)-before, 0)
	to := min(from+before+after, len(lines)-last)
	var b strings.Builder
	if from = min(from, to); from > 0 {
		fmt.Fprintf(&b, "[%d lines]\n", from)
	}
	b.WriteString(strings.Join(lines[from:to], ""))
	if n := len(lines) - last - to; n > 0 {
		fmt.Fprintf(&b, "[%d lines]\n", n)
	}
	b.WriteString(strings.Join(lines[len(lines)-last:], ""))
	return b.String()
}
