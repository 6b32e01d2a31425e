//go:build unix

package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVerboseTellsWhomAWaitIsFor(t *testing.T) {
	t.Parallel()
	holder := lock(t, "hold", name(t), "--identity", "somebody")
	holder.says("token")
	p := lock(t, "run", "-v", name(t), "-c", "exit 3")
	eventually(t, func() bool { return strings.Contains(p.err.String(), `held by="somebody", waiting=1`) }, "whom it waits for")
	holder.signal(syscall.SIGTERM)
	assert.Equal(t, 3, p.code())
	assert.Contains(t, p.err.String(), "etcdlock: the lock is held (name=")
}

func TestLogFormatJSONIsJSONToTheLastLine(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, append([]string{"run", "-v", "--log-format", "json", name(t)}, beats(t)...)...)
	p.says("beat")
	lose(t, c)
	assert.Equal(t, exitLost, p.code())
	var all []string
	for line := range strings.Lines(p.err.String()) {
		var r struct{ Level, Msg string }
		require.NoError(t, json.Unmarshal([]byte(line), &r), line)
		all = append(all, r.Level+" "+r.Msg)
	}
	assert.Contains(t, all, "INFO the lock is held")
	assert.Contains(t, all, "ERROR the lock is lost: killed the command")
	assert.Contains(t, all[len(all)-1], "ERROR the lock was lost before ")
}

// What etcdlock says may have no reader any more. It has to go on all the same.
func TestAStderrThatIsClosedEndsNothing(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	p := prepared(t, sharedEtcd(t), "run", "-vv", name(t), "-c", "echo runs; read x; exit 3")
	p.cmd.Stderr = w
	end := p.piped()
	require.NoError(t, w.Close())
	p.says("runs")
	end()
	assert.Equal(t, 3, p.code())

	// And the command dies of a broken pipe as ever.
	p = lock(t, "run", name(t), "-c", "(while :; do echo y; done; echo $? >&2) | true; exit 4")
	assert.Equal(t, 4, p.code())
	assert.Empty(t, p.err.String())
}

// The parts of a client may say something for a moment after they were told to end.
func TestWhatIsSaidTooLateHarmsNothing(t *testing.T) {
	t.Parallel()
	var out text
	s := newSayer(&out)
	s.line("in time")
	s.flush()
	require.NotPanics(t, func() { s.line("too late") })
	assert.Equal(t, "in time\n", out.String())
}
