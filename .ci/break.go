// Command break shows that the tests of the promises test them: it reads the table in CONTRIBUTING.md, and for each row
// breaks the line named there in a copy of the working tree and runs its test, which has to go red.
//
//	go run .ci/break.go            all rows, some minutes
//	go run .ci/break.go -row 3     only the third
//	go run .ci/break.go -check     runs nothing: are the lines of the table still there, and the tests?
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

type row struct{ promise, test, file, line, broken string }

// rows reads the table: a promise, and then test, file, line and what to make of it, each as code.
func rows(contributing string) (all []row) {
	cells := regexp.MustCompile("^\\| (.*) \\| `((?:Test|Example)\\w+)` \\| `([\\w/]+\\.go)` \\| `(.*)` \\| `(.*)` \\|$")
	for line := range strings.Lines(contributing) {
		if m := cells.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			all = append(all, row{m[1], m[2], m[3], m[4], m[5]})
		}
	}
	return all
}

func main() {
	only := flag.Int("row", 0, "a single row of the table, from 1")
	check := flag.Bool("check", false, "only look whether each line is there, once, and each test")
	flag.Parse()
	if err := run(*only, *check); err != nil {
		fmt.Fprintln(os.Stderr, "break:", err)
		os.Exit(1)
	}
}

func run(only int, check bool) (err error) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		return err
	}
	all := rows(string(text))
	if len(all) == 0 || only > len(all) {
		return fmt.Errorf("the table in CONTRIBUTING.md has %d rows", len(all))
	}
	if check {
		for i, r := range all {
			whole, err := os.ReadFile(r.file)
			if err != nil {
				return err
			}
			if n := bytes.Count(whole, []byte(r.line)); n != 1 {
				return fmt.Errorf("row %d: %s has %d times %q", i+1, r.file, n, r.line)
			}
			if !has(packageOf(".", r.test), r.test) {
				return fmt.Errorf("row %d: there is no %s", i+1, r.test)
			}
		}
		return nil
	}
	dir, err := os.MkdirTemp("", "etcdlock-break-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := copyTree(dir); err != nil {
		return err
	}
	bad := 0
	for i, r := range all {
		if only != 0 && i+1 != only {
			continue
		}
		start := time.Now()
		verdict := try(dir, r)
		fmt.Printf("%2d  %-14s %-60s %4.0f s  %s\n", i+1, verdict, r.test, time.Since(start).Seconds(), r.line)
		if verdict != "red" {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d rows did not go from green to red", bad)
	}
	return nil
}

// try breaks one line, runs the test, and mends the line.
func try(dir string, r row) string {
	path := filepath.Join(dir, r.file)
	whole, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if n := bytes.Count(whole, []byte(r.line)); n != 1 {
		return fmt.Sprintf("line found %d times", n)
	}
	if out, green := test(dir, r.test); !green {
		fmt.Printf("%s\n", out)
		return "red before"
	}
	if err := os.WriteFile(path, bytes.Replace(whole, []byte(r.line), []byte(r.broken), 1), 0o600); err != nil {
		return err.Error()
	}
	defer func() { _ = os.WriteFile(path, whole, 0o600) }()
	out, green := test(dir, r.test)
	switch {
	case green:
		return "STILL GREEN"
	case !bytes.Contains(out, []byte("--- FAIL")) && !bytes.Contains(out, []byte("panic: ")):
		fmt.Printf("%s\n", out)
		return "does not build"
	}
	return "red"
}

func test(dir, name string) (out []byte, green bool) {
	// Without what costs most of the time: checks of the source, and the tables of debuggers.
	cmd := exec.Command("go", "test", "-vet=off", "-ldflags=-s -w", "-count=1", "-timeout=3m", "-run", "^"+name+"$", ".")
	cmd.Dir = packageOf(dir, name)
	out, err := cmd.CombinedOutput()
	return out, err == nil && !bytes.Contains(out, []byte("no tests to run"))
}

// packageOf finds where a test is: at the root, or in the package that it tests, which may be a module of its own.
func packageOf(dir, name string) string {
	pkg := dir
	for _, under := range []string{"internal", "cmd", "concurrency", "locktest", "prometheus", "otel", "adapters", "docs", "examples"} {
		_ = filepath.WalkDir(filepath.Join(dir, under), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && defines(path, name) {
				pkg = filepath.Dir(path)
			}
			return nil
		})
	}
	return pkg
}

// has reports whether a test is in a package.
func has(pkg, name string) bool {
	files, _ := filepath.Glob(filepath.Join(pkg, "*_test.go"))
	return slices.ContainsFunc(files, func(path string) bool { return defines(path, name) })
}

func defines(path, name string) bool {
	if !strings.HasSuffix(path, "_test.go") {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && bytes.Contains(text, []byte("func "+name+"("))
}

// copyTree copies what git knows of the working tree.
func copyTree(dir string) error {
	list, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.Trim(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
