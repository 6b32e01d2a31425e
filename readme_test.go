package etcdlock_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The first program of the README is what a newcomer pastes: it has to compile and to do what it says.
func TestTheProgramOfTheReadmeWorksWhenPasted(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(moduleDir, "README.md"))
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found, "README.md has Go code")
	program, _, found := strings.Cut(rest, "```\n")
	require.True(t, found, "and it ends")
	require.Equal(t, 1, strings.Count(program, `"127.0.0.1:2379"`))
	program = strings.Replace(program, "127.0.0.1:2379", newServer(t, nil), 1)

	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "pasted.exe")
	require.NoError(t, os.WriteFile(source, []byte(program), 0o600))
	run := func(ctx context.Context, name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = moduleDir
		out, err := cmd.CombinedOutput()
		require.NoErrorf(t, err, "%s", out)
		return string(out)
	}
	run(t.Context(), "go", "build", "-o", binary, source)
	out := run(soon(t), binary)
	assert.Regexp(t, regexp.MustCompile(`^job 9 is mine, with fencing token [1-9][0-9]*\n$`), out)
}
