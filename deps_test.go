package etcdlock_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listDeps returns the packages behind one package, itself included, as `go list -deps` prints them with that format.
func listDeps(t *testing.T, format, pkg string) map[string]bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoErrorf(t, err, "go list -deps %s: %s", pkg, stderr.String())
	deps := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		if p := strings.TrimSpace(line); p != "" {
			deps[p] = true
		}
	}
	return deps
}

// Whoever imports the library must not get this module's tests, tools or servers compiled into a program.
func TestTheImportBringsTheEtcdClientAndNothingElse(t *testing.T) {
	const (
		root     = "github.com/etcdlock/etcdlock"
		everyone = "{{.ImportPath}}"
		foreign  = "{{if not .Standard}}{{.ImportPath}}{{end}}"
	)
	client := listDeps(t, everyone, "go.etcd.io/etcd/client/v3")
	for pkg := range listDeps(t, foreign, root) {
		if pkg != root && !strings.HasPrefix(pkg, root+"/internal/") && !client[pkg] {
			t.Errorf("%s is behind the import, and is neither the standard library's nor the etcd client's", pkg)
		}
	}
	// The standard library has packages that a program should not carry either.
	for pkg := range listDeps(t, everyone, root) {
		if pkg == "testing" || strings.HasPrefix(pkg, "testing/") {
			t.Errorf("%s is behind the import", pkg)
		}
	}
}
