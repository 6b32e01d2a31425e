package embedded_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/etcdlock/etcdlock/internal/embedded"
)

func TestNothingIsLeftOfAnEmbeddedEtcd(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // os.TempDir on Unix
	t.Setenv("TMP", os.Getenv("TMPDIR"))
	ignore := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	client, stop, err := embedded.Client(ctx, "")
	require.NoError(t, err)
	_, err = client.Put(ctx, "k", "v")
	require.NoError(t, err)
	require.NoError(t, stop())

	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
	goleak.VerifyNone(t, ignore)
}

func TestAStartThatIsGivenUpLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TMP", os.Getenv("TMPDIR"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, _, err := embedded.Client(ctx, "")
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
}
