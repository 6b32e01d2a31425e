package main

// One of the three processes: this same program, started again with nodeEnv
// set. It campaigns, leads, and tells on its standard output what it believes.

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

const (
	nodeEnv = "ETCDLOCK_FAILOVER_NODE" // the node's name
	argsEnv = "ETCDLOCK_FAILOVER_ARGS" // its config, as JSON
)

// What nodes say. A line is written by one write far below PIPE_BUF, and all
// nodes share one pipe: what the director reads is in the order it was said.
const (
	joined   = "joined"   // has a session; TTL
	leads    = "leads"    // Campaign returned; Token
	resigns  = "resigns"  // is about to call Resign
	resigned = "resigned" // Resign returned
	woke     = "woke"     // did not run for Gap; then asked whether it still leads
	lost     = "lost"     // leads no longer and had not stepped down
	exited   = "exited"   // said by the director: the process is gone
	observed = "observed" // said by the director's observer: Leader, Token
)

type event struct {
	At     time.Time
	Node   string
	Kind   string
	Token  int64         `json:",omitempty"`
	TTL    time.Duration `json:",omitempty"`
	Gap    time.Duration `json:",omitempty"`
	Over   string        `json:",omitempty"` // Context().Err() and its cause, if the hold is over
	Leader string        `json:",omitempty"`
	Err    error         `json:"-"`
}

type nodeArgs struct {
	Endpoints []string
	Name      string
	TTL       time.Duration
}

func nodeMain() int {
	// Ctrl-C reaches every process of the terminal. Who ends when is for the
	// director to say: by closing our standard input, which happens as well when
	// it dies.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	n := &node{name: os.Getenv(nodeEnv), resign: make(chan struct{})}
	if err := n.run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", n.name, err)
		return 1
	}
	return 0
}

type node struct {
	name     string
	election *etcdlock.Election
	resign   chan struct{}
}

func (n *node) run() (err error) {
	var args nodeArgs
	if err := json.Unmarshal([]byte(os.Getenv(argsEnv)), &args); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go n.obey(ctx, cancel)

	client, err := embedded.Dial(args.Endpoints...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	session, err := etcdlock.NewSession(ctx, client, etcdlock.WithTTL(args.TTL), etcdlock.WithIdentity(n.name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	n.election = etcdlock.NewElection(session, args.Name)
	n.say(event{Kind: joined, TTL: session.TTL()})

	// Election.Run is this loop, ready made; here each step is told.
	for ctx.Err() == nil {
		if err := n.election.Campaign(ctx, n.name); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		n.say(event{Kind: leads, Token: n.election.Token()})
		if err := n.lead(ctx); err != nil {
			return err
		}
	}
	return nil // Close gives back what is still held
}

// lead is the work of a master. Like work that is about to touch something, it
// asks before each step whether it still leads. It does not listen to Done:
// in a process that was stopped, asking must be enough.
func (n *node) lead(ctx context.Context) error {
	const step = 100 * time.Millisecond
	hold := n.election.Context()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-tick.C:
		case <-n.resign:
			n.say(event{Kind: resigns})
			if err := n.election.Resign(ctx); err != nil && !errors.Is(err, etcdlock.ErrLost) {
				return err
			}
			n.say(event{Kind: resigned})
			return nil
		case <-ctx.Done():
			return nil
		}
		over := hold.Err() // the first thing that is done after any wake-up
		at := time.Now()
		said := event{At: at, Kind: lost, Gap: at.Sub(last)}
		if over != nil {
			said.Over = fmt.Sprintf("%v (cause: %v)", over, context.Cause(hold))
		}
		last = at
		if said.Gap > 10*step {
			said.Kind = woke
		}
		if over != nil || said.Kind == woke {
			n.say(said)
		}
		if over != nil {
			return nil
		}
	}
}

// obey reads orders until the director closes the pipe or is gone.
func (n *node) obey(ctx context.Context, end context.CancelFunc) {
	defer end()
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		if strings.TrimSpace(orders.Text()) == "resign" {
			select {
			case n.resign <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (n *node) say(e event) {
	e.Node = n.name
	if e.At.IsZero() {
		e.At = time.Now()
	}
	line, err := json.Marshal(e)
	if err != nil {
		panic("bug: " + err.Error())
	}
	// A director that is gone cannot read; obey learns of that.
	_, _ = os.Stdout.Write(append(line, '\n'))
}
