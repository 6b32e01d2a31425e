package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyARunThatEndedWritesItsPages(t *testing.T) {
	const before = "what an earlier run has measured"
	measured := result{row: "r", what: "w", floor: 1, ours: 2, theirs: 3}
	for name, c := range map[string]struct {
		results []result
		failed  error
		ended   bool
	}{
		"ended":                {[]result{measured}, nil, true},
		"a row failed":         {[]result{measured}, errors.New("not reached within the time limit"), false},
		"nothing was measured": {nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pages := []string{filepath.Join(dir, "performance-table.md"), filepath.Join(dir, "performance.svg")}
			for _, page := range pages {
				require.NoError(t, os.WriteFile(page, []byte(before), 0o600))
			}
			r := &report{out: io.Discard, results: c.results}
			if c.failed != nil {
				r.fail("the rest", "3 members", c.failed)
			}
			err := publish(r, dir)
			for _, page := range pages {
				after, readErr := os.ReadFile(page)
				require.NoError(t, readErr)
				if c.ended {
					require.NotEqual(t, before, string(after))
				} else {
					require.Equal(t, before, string(after))
				}
			}
			if c.ended {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "did not come to its end")
			require.Error(t, publish(r, ""), "and without a page it has failed all the same")
		})
	}
}
