// Package repo knows where the repository lies, `go run -C tests ./faults` begins in tests while whoever types it stands
// at the root, and which etcd its go.mod names.
package repo

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// Path is where a path from a command line leads: a relative one begins at the root of the repository. An empty one
// stays empty.
func Path(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) {
		return path, nil
	}
	root, err := Root()
	return filepath.Join(root, path), err
}

// Root is the directory of the library that is under test.
func Root() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/etcdlock/etcdlock").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("where is the repository? go list: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// EtcdVersion is that of the etcd client in this program; go.mod has the servers at the same.
func EtcdVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "go.etcd.io/etcd/client/v3" {
				return m.Version
			}
		}
	}
	return "of an unknown version"
}
