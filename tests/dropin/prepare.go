package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// The one line that is changed.
const (
	theirImport = `"go.etcd.io/etcd/client/v3/concurrency"`
	ourImport   = `"github.com/etcdlock/etcdlock/concurrency"`
)

// modules are those of etcd's that are copied, by the name of the copy. Only these parts of them have a file that imports
// the package; the package itself stays, since its STM is still in use.
var modules = map[string]string{
	"tests":  "go.etcd.io/etcd/tests/v3",
	"client": "go.etcd.io/etcd/client/v3",
	"server": "go.etcd.io/etcd/server/v3",
}

// left out of the copies: what is not run, and needs modules of its own.
var leftOut = []string{
	"tests/antithesis", "tests/robustness", "tests/e2e", "tests/common", "tests/integration/cache_test.go",
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum64()
}

// prepare makes the copies, and the module of the tests on top of them. It returns in how many files the line was changed.
func prepare(ctx context.Context, dir, root, version string, theirs bool) (files int, err error) {
	for name, path := range modules {
		src, err := moduleDir(ctx, path, version)
		if err != nil {
			return 0, err
		}
		n, err := copyTree(filepath.Join(dir, name), src, name, theirs)
		if err != nil {
			return 0, err
		}
		files += n
	}
	return files, goMod(dir, root)
}

// etcdVersion is that of etcd which this module uses.
func etcdVersion(ctx context.Context) (string, error) {
	out, err := goTool(ctx, ".", "list", "-m", "-f", "{{.Version}}", modules["client"])
	return strings.TrimSpace(string(out)), err
}

// moduleDir is where a module of etcd's lies.
func moduleDir(ctx context.Context, path, version string) (string, error) {
	out, err := goTool(ctx, ".", "mod", "download", "-json", path+"@"+version)
	var m struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &m); jerr != nil {
		return "", errors.Join(err, jerr)
	}
	if m.Error != "" {
		return "", errors.New(m.Error)
	}
	return m.Dir, err
}

func copyTree(dst, src, name string, theirs bool) (changed int, err error) {
	err = filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		for _, out := range leftOut {
			if filepath.Join(name, rel) == filepath.FromSlash(out) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dst, rel), 0o755)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !theirs && strings.HasSuffix(path, ".go") && bytes.Contains(data, []byte(theirImport)) {
			data = bytes.ReplaceAll(data, []byte(theirImport), []byte(ourImport))
			changed++
		}
		return os.WriteFile(filepath.Join(dst, rel), data, 0o644)
	})
	return changed, err
}

var (
	replaces = regexp.MustCompile(`(?ms)^replace \(.*?^\)\n`)
	cacheMod = regexp.MustCompile(`(?m)^.*go\.etcd\.io/etcd/cache/v3.*\n`)
	chain    = regexp.MustCompile(`(?m)^toolchain .*\n`)
)

// goMod makes the go.mod of the copied tests stand outside of etcd's repository, on the copies and on this repository.
func goMod(dir, root string) error {
	path := filepath.Join(dir, "tests", "go.mod")
	mod, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, r := range []*regexp.Regexp{replaces, cacheMod, chain} {
		mod = r.ReplaceAll(mod, nil)
	}
	mod = fmt.Appendf(mod, "\nrequire github.com/etcdlock/etcdlock v0.0.0\n\nreplace (\n"+
		"\tgithub.com/etcdlock/etcdlock => %s\n\tgo.etcd.io/etcd/client/v3 => ../client\n\tgo.etcd.io/etcd/server/v3 => ../server\n)\n", root)
	// What this repository knows to be in the modules, so that the go command need not ask for it.
	sums, err := os.ReadFile(filepath.Join(dir, "tests", "go.sum"))
	for _, more := range []string{"go.sum", "tests/go.sum"} {
		known, rerr := os.ReadFile(filepath.Join(root, more))
		sums, err = append(sums, known...), errors.Join(err, rerr)
	}
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "tests", "go.sum"), sums, 0o644), os.WriteFile(path, mod, 0o644))
}

// build compiles the tests of one package.
func build(ctx context.Context, dir, pkg, bin string) error {
	_, err := goTool(ctx, filepath.Join(dir, "tests"), "test", "-mod=mod", "-c", "-o", bin, "./"+pkg)
	return err
}

func goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=") // nothing that the copies are not made for
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, err
}
