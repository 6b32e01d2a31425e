package etcdlock_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every piece of Go in docs/watching.md is part of an example that is compiled and run. Only the indentation may differ.
func TestTheCodeOfThePageOnWatchingIsThatOfTheExamples(t *testing.T) {
	flat := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(moduleDir, name))
		require.NoError(t, err)
		return string(text)
	}
	examples := flat(read("example_watching_test.go")) + flat(read("prometheus/example_test.go")) + flat(read("otel/example_test.go"))
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read("docs/watching.md"), -1)
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		assert.Contains(t, examples, flat(b[1]))
	}
}
