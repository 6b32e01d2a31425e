package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/embedded"
)

// The test binary plays the program when mainEnv is set.
const mainEnv = "ETCDLOCK_CRON_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t *testing.T, etcd *embedded.Etcd, args ...string) (said string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, append([]string{"-endpoints", etcd.Endpoints()[0]}, args...)...)
	cmd.Env = append(os.Environ(), mainEnv+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// One machine's clock is a little behind: the first has done the job, and its process has ended, when the second begins.
func TestAStartAfterTheEndOfTheFirstRunsNothing(t *testing.T) {
	etcd, err := embedded.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, etcd.Close()) })
	require.Contains(t, start(t, etcd, "-takes", "1s"), "job9 is done")
	require.Contains(t, start(t, etcd, "-takes", "1s"), "job9 is run by")
}
