package repo_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/tests/internal/repo"
)

func TestARelativePathBeginsAtTheRootOfTheRepository(t *testing.T) {
	got, err := repo.Path("docs/faults.md")
	require.NoError(t, err)
	want, err := filepath.Abs("../../../docs/faults.md")
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.FileExists(t, got)

	for _, same := range []string{"", want} {
		got, err := repo.Path(same)
		require.NoError(t, err)
		require.Equal(t, same, got)
	}
}
