package main

// Starting, stopping, and above all not losing the nodes' processes.

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

type process struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	gone   chan struct{} // closed once waited for
	frozen bool
	ending bool // its exit is no surprise
}

// launch starts a node. It has to be called from a goroutine that is locked to
// its thread: Linux delivers the parent-death signal when the *thread* that
// started the child ends, and an unlocked goroutine may have moved off it.
func (d *director) launch(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args, err := json.Marshal(nodeArgs{Endpoints: strings.Split(d.cfg.endpoints, ","), Name: d.cfg.name, TTL: d.cfg.ttl})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+name, argsEnv+"="+string(args))
	cmd.Stdout, cmd.Stderr = d.told, os.Stderr
	dieWithParent(cmd)
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, orders: orders, gone: make(chan struct{})}
	d.nodes[name] = p
	d.joins.Go(func() {
		err := cmd.Wait()
		close(p.gone)
		d.tell(event{At: time.Now(), Node: name, Kind: exited, Err: err})
	})
	return p, nil
}

// listen passes on what the nodes say until the last writer of the pipe is gone.
func (d *director) listen(pipe *os.File) {
	defer func() { _ = pipe.Close() }() // it was read to its end
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
			d.tell(e)
		}
	}
}

// observe passes on whom etcd names as the leader. It is one more client of
// the library, beside the nodes, and ends with ctx.
func (d *director) observe(ctx context.Context) {
	for leader, err := range d.election.Observe(ctx) {
		if err != nil {
			if ctx.Err() == nil {
				d.tell(event{At: time.Now(), Kind: observed, Err: err})
			}
			return
		}
		d.tell(event{At: time.Now(), Kind: observed, Leader: leader.Value, Token: leader.Token})
	}
}

// tell hands an event to the story, or drops it when the story is over.
func (d *director) tell(e event) {
	select {
	case d.events <- e:
	case <-d.over:
	}
}

// dismiss ends every process: by asking, which lets a node give back its lease,
// then, after a while or if it cannot hear, by SIGKILL.
func (d *director) dismiss() {
	for _, p := range d.nodes {
		p.ending = true
		_ = p.orders.Close() // closed already where the process is gone
		if p.frozen {
			_ = p.cmd.Process.Kill() // an error means that it is gone already
		}
	}
	patience := time.NewTimer(3 * time.Second)
	defer patience.Stop()
	for _, p := range d.nodes {
		select {
		case <-p.gone:
		case <-patience.C:
			patience.Reset(0) // for those that follow
			_ = p.cmd.Process.Kill()
			<-p.gone
		}
	}
}
