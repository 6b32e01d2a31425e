// Command testjson reads the output of `go test -json`, shows what failed, and fails on a failed, a skipped or a
// missing test: a test that skips itself proves nothing and looks like one that passed.
//
//	go test -json ./... | go run .ci/testjson.go
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

func main() {
	output := map[string][]string{}
	var failed, skipped []string
	passed := 0
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadString('\n')
		var e event
		switch {
		case strings.TrimSpace(line) == "":
		case json.Unmarshal([]byte(line), &e) != nil:
			fmt.Print(line) // the go command's own words
		default:
			who := e.Package + e.ImportPath + " " + e.Test
			switch e.Action {
			case "output", "build-output":
				output[who] = append(output[who], e.Output)
			case "pass":
				if e.Test != "" {
					passed++
				} else {
					fmt.Printf("ok    %s  %.1fs\n", e.Package, e.Elapsed)
				}
				delete(output, who)
			case "skip":
				if e.Test != "" { // without one it is a package that has no tests
					skipped = append(skipped, who)
				}
			case "fail", "build-fail":
				failed = append(failed, who)
				fmt.Printf("FAIL  %s  %.1fs\n%s\n", who, e.Elapsed, strings.Join(output[who], ""))
			}
		}
		if err != nil {
			break
		}
	}
	for _, who := range skipped {
		fmt.Printf("SKIP  %s\n%s\n", who, strings.Join(output[who], ""))
	}
	fmt.Printf("%d tests passed, %d failed, %d skipped\n", passed, len(failed), len(skipped))
	if len(failed)+len(skipped) > 0 || passed == 0 {
		os.Exit(1)
	}
}
