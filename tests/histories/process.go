package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// process is a machine in an operating system process of its own, which can be frozen and killed. It is this program
// started again: the machine's configuration comes as its first line of input, the end of its input asks it to end,
// and its output is its records.
type process struct {
	cfg  machineConfig
	take func(record)
	lost func(error) // told when a process ends by itself with an error

	mu    sync.Mutex // held while the process is frozen, killed or started: one thing at a time
	cmd   *exec.Cmd
	input io.WriteCloser
	gone  chan struct{}
	lives int
	over  bool // no fault may touch it any more
}

// machineFlag is how a process is told that it is a machine.
const machineFlag = "-machine"

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.startLocked()
}

func (p *process) startLocked() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cfg := p.cfg
	p.lives++
	cfg.ID = fmt.Sprintf("%s.%d", cfg.ID, p.lives) // a new life is a new machine: it knows nothing of the old one's holds
	line, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, machineFlag)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.input, p.gone = cmd, in, make(chan struct{})
	gone := p.gone
	go func() {
		defer close(gone)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var r record
			if json.Unmarshal(lines.Bytes(), &r) == nil { // the last line of a killed process may be cut short
				p.take(r)
			}
		}
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() > 0 {
			p.lost(fmt.Errorf("machine %s: %w", cfg.ID, err))
		}
	}()
	_, err = in.Write(append(line, '\n'))
	return err
}

// stopFor freezes the process for d.
func (p *process) stopFor(ctx context.Context, d time.Duration, st *stage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	from := clock()
	if err := freeze(p.cmd.Process); err != nil {
		return err
	}
	pause(ctx, d)
	err := thaw(p.cmd.Process)
	st.mu.Lock()
	st.stops = append(st.stops, [2]int64{from, clock()})
	st.mu.Unlock()
	return err
}

// killFor kills the process and starts another after d.
func (p *process) killFor(ctx context.Context, d time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	<-p.gone
	pause(ctx, d)
	return p.startLocked()
}

// end asks the process to come to an end and waits for that; one that does not is killed.
func (p *process) end(limit time.Duration) error {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.input.Close()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.gone:
		return nil
	case <-t.C:
		_ = p.cmd.Process.Kill()
		<-p.gone
		return fmt.Errorf("machine %s did not come to an end within %v", p.cfg.ID, limit)
	}
}

// beMachine is the other side: what the process does.
func beMachine(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	var cfg machineConfig
	if err := json.Unmarshal(line, &cfg); err != nil {
		return err
	}
	stop, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = lines.ReadByte() // the end of input: either the run is over, or whoever started us is gone
		cancel()
	}()
	return cfg.run(context.Background(), stop, newRecorder(out))
}
