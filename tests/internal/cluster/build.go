package cluster

import (
	"context"
	"crypto/sha256"
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
// in the user's cache directory, under a name that its content gives it: a
// process that has another version built must not change what this one starts
// again later.
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
	mine := filepath.Join(dir, fmt.Sprintf("etcd.%d", os.Getpid()))
	defer os.Remove(mine)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", mine, serverPackage)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: go build %s: %w\n%s", serverPackage, err, out)
	}
	binary, err := os.ReadFile(mine)
	if err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	final := filepath.Join(dir, fmt.Sprintf("etcd-%x", sha256.Sum256(binary)))
	if err := os.Rename(mine, final); err != nil {
		return "", fmt.Errorf("cluster: %w", err)
	}
	built.path = final
	return final, nil
}
