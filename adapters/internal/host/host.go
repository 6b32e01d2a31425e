// Package host runs the tests of the programs that the adapters are for, as their authors wrote them.
package host

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An Edit puts our lock where a test of the host has its own.
type Edit struct{ file, before, after string }

// Put is the Edit of what is in file, exactly once, into something else.
func Put(file, before, after string) Edit { return Edit{file, before, after} }

// Test runs the tests of a module's first package that match run: in a copy of the version that go.mod names, with edits, and
// with more files. It wants them to be these, and to pass.
func Test(t *testing.T, module, run string, want []string, edits []Edit, more map[string]string) {
	t.Helper()
	tmp := t.TempDir()
	dir, ours := filepath.Join(tmp, "host"), filepath.Join(tmp, "go.mod")
	require.NoError(t, os.CopyFS(dir, os.DirFS(command(t, "go", "list", "-m", "-f", "{{.Dir}}", module))))
	for _, e := range edits {
		at := filepath.Join(dir, e.file)
		text, err := os.ReadFile(at)
		require.NoError(t, err)
		require.Equalf(t, 1, bytes.Count(text, []byte(e.before)), "%s in %s", e.before, e.file)
		require.NoError(t, os.Remove(at)) // what is copied from the module cache cannot be written to
		require.NoError(t, os.WriteFile(at, bytes.Replace(text, []byte(e.before), []byte(e.after), 1), 0o600))
	}
	for file, text := range more {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600))
	}

	root := filepath.Dir(command(t, "go", "env", "GOMOD"))
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(tmp, file), text, 0o600))
	}
	command(t, "go", "mod", "edit", "-replace", module+"="+dir, ours)
	out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-json", "-modfile", ours, "-run", run, module).CombinedOutput()
	var passed []string
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var event struct{ Action, Test string }
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Action == "pass" && event.Test != "" {
			passed = append(passed, event.Test)
		}
	}
	require.NoErrorf(t, err, "%s", out)
	require.ElementsMatchf(t, want, passed, "%s", out)
}

// command returns what a command says.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
