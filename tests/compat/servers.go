package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// server is one series of etcd and where its server comes from.
type server struct {
	series string
	origin string
	get    func(ctx context.Context, dir string) (binary string, err error)
}

// The versions are those of the go.mod files named here. 3.4 cannot be built as a module beside today's dependencies, so
// that one is Debian's.
var servers = []server{
	{"3.4", "Debian's etcd-server, downloaded and unpacked", fromDebian},
	{"3.5", "built in tests/compat/servers/v35", fromModule("compat/servers/v35")},
	{"3.6", "built in tests/compat/servers/v36", fromModule("compat/servers/v36")},
	{"3.7", "built in this module", fromModule(".")},
}

// fromModule builds the server that the module in a directory of this repository requires.
func fromModule(module string) func(context.Context, string) (string, error) {
	return func(ctx context.Context, dir string) (string, error) {
		root, err := output(ctx, "", "go", "env", "GOMOD")
		if err != nil {
			return "", err
		}
		if root == "" || root == os.DevNull {
			return "", errors.New("not inside the module: run it where go.mod is")
		}
		binary := filepath.Join(dir, "etcd-"+filepath.Base(module))
		_, err = output(ctx, filepath.Join(filepath.Dir(root), module),
			"go", "build", "-o", binary, "go.etcd.io/etcd/server/v3")
		return binary, err
	}
}

// fromDebian downloads the package without installing it. A machine whose package lists are empty, as in a fresh
// container, gets lists of its own in dir: the system's are left alone, and root is not needed.
func fromDebian(ctx context.Context, dir string) (string, error) {
	dir = filepath.Join(dir, "debian")
	for _, d := range []string{"lists/partial", "cache/archives/partial", "deb"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	deb := filepath.Join(dir, "deb")
	_, first := output(ctx, deb, "apt-get", "download", "etcd-server")
	if first != nil {
		own := []string{"-o", "Dir::State::Lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(dir, "cache")}
		if _, err := output(ctx, deb, "apt-get", append(own, "update")...); err != nil {
			return "", errors.Join(first, err)
		}
		if _, err := output(ctx, deb, "apt-get", append(own, "download", "etcd-server")...); err != nil {
			return "", errors.Join(first, err)
		}
	}
	found, err := filepath.Glob(filepath.Join(deb, "etcd-server_*.deb"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("apt-get download etcd-server left %q", found)
	}
	if _, err := output(ctx, deb, "dpkg", "-x", found[0], "."); err != nil {
		return "", err
	}
	return filepath.Join(deb, "usr/bin/etcd"), nil
}

// versionOf asks the binary itself.
func versionOf(ctx context.Context, binary string) (string, error) {
	out, err := output(ctx, "", binary, "--version")
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(out, "\n")
	version, ok := strings.CutPrefix(line, "etcd Version: ")
	if !ok {
		return "", fmt.Errorf("%s --version says %q", binary, line)
	}
	return version, nil
}

// output runs a command in a directory.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}
