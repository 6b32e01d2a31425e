package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// serverPackage is built from the version that go.mod names, so that the suite
// can never run against a server other than the one it reports.
const serverPackage = "go.etcd.io/etcd/server/v3"

var built struct {
	sync.Mutex
	path string
}

// Build compiles the etcd server and returns the path of the binary. It needs
// the go command and a working directory inside this module. The result stays
// in the user's cache directory: go build leaves an up-to-date file alone.
func Build(ctx context.Context) (string, error) {
	built.Lock()
	defer built.Unlock()
	if built.path != "" {
		return built.path, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "etcdlock", "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	// Two processes may build at once: each writes a file of its own and moves
	// it into place, so that nobody ever starts half a binary.
	final := filepath.Join(dir, "etcd")
	mine := fmt.Sprintf("%s.%d", final, os.Getpid())
	defer os.Remove(mine)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", mine, serverPackage)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: go build %s: %w\n%s", serverPackage, err, out)
	}
	if err := os.Rename(mine, final); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	built.path = final
	return final, nil
}
