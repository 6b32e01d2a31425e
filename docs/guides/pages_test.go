package guides_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pages are the guides and the page on adapters, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := filesAt(t, "*.md")
	for path, text := range filesAt(t, "../adapters.md") {
		texts[path] = text
	}
	return texts
}

// filesAt returns the texts of the files of a pattern, by path.
func filesAt(t *testing.T, pattern string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmptyf(t, paths, "files like %s", pattern)
	texts := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		texts[path] = string(text)
	}
	return texts
}

// Every piece of Go in a guide is a piece of a test here, or of the module adapters, which has a database. Only the indentation
// may differ.
func TestTheCodeOfTheGuidesIsThatOfTheTests(t *testing.T) {
	flat := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	var tested strings.Builder
	for _, pattern := range []string{"*_test.go", "../../adapters/*/*.go"} {
		for _, text := range filesAt(t, pattern) {
			tested.WriteString(flat(text) + "\n")
		}
	}
	blocks := 0
	for page, text := range pages(t) {
		for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(text, -1) {
			assert.Containsf(t, tested.String(), flat(block[1]), "code of %s", page)
			blocks++
		}
	}
	assert.GreaterOrEqual(t, blocks, 8)
}

func TestTheLinksOfTheGuidesLeadSomewhere(t *testing.T) {
	for page, text := range pages(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(link[1], "://") {
				_, err := os.Stat(filepath.Join(filepath.Dir(page), link[1]))
				assert.NoErrorf(t, err, "link of %s", page)
			}
		}
	}
}

func TestTheLinesOfTheAdaptersAreCounted(t *testing.T) {
	rows := regexp.MustCompile(`\]\(\.\./adapters/(\w+/\w+\.go)\).*\| (\d+) \|`).FindAllStringSubmatch(pages(t)["../adapters.md"], -1)
	require.NotEmpty(t, rows)
	for _, row := range rows {
		lines := 0
		for _, text := range filesAt(t, filepath.Join("../../adapters", row[1])) {
			for line := range strings.Lines(text) {
				if code := strings.TrimSpace(line); code != "" && !strings.HasPrefix(code, "//") {
					lines++
				}
			}
		}
		assert.Equal(t, row[2], strconv.Itoa(lines), row[1])
	}
}
