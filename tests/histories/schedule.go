package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// fault is one thing that goes wrong, at a moment of the run and, where that means something, for a while.
type fault struct {
	At      time.Duration
	For     time.Duration
	Kind    string
	Machine int     // whose link, or which client process
	Member  int     // which link of it, -1 for all; or which member
	Name    string  // which lock an operator lays hands on
	Delay   float64 // as a part of the TTL
}

func (f fault) String() string {
	return fmt.Sprintf("%8.3fs for %5.3fs  %-22s machine %d member %d %s",
		f.At.Seconds(), f.For.Seconds(), f.Kind, f.Machine, f.Member, f.Name)
}

// The kinds of faults, by what they need. A kind that stands twice comes twice as often.
var (
	linkFaults = []string{
		"hold both", "hold both", "hold answers", "hold requests", "delay answers", "delay requests", "cut", "drop", "strand",
	}
	operatorFaults = []string{"delete holder", "delete waiter", "delete prefix", "revoke lease", "compact", "defragment"}
	processFaults  = []string{"stop client", "stop client", "kill client"}
	memberFaults   = []string{"stop member", "stop leader", "kill member"}
	movingFaults   = []string{"move leader"}
)

// surroundings are what a schedule is made for.
type surroundings struct {
	machines int
	members  int
	servers  bool // etcd runs in processes of its own
	clients  bool // so do the machines
	ttl      time.Duration
	names    []string // that an operator lays hands on
}

// schedule makes the faults of a run: the same ones for the same arguments, always.
func schedule(seed uint64, duration time.Duration, in surroundings) []fault {
	rnd := rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15))
	groups := [][]string{linkFaults, linkFaults, operatorFaults}
	if in.clients {
		groups = append(groups, processFaults)
	}
	if in.servers {
		groups = append(groups, memberFaults)
		if in.members > 1 {
			groups = append(groups, memberFaults, movingFaults)
		}
	}
	var all []fault
	var memberFree time.Duration // one member at a time: the loss of a quorum is another experiment
	// The last part of a run is quiet: what the faults left behind must come to an end in it.
	for at := in.ttl / 2; at < duration-in.ttl; at += in.ttl/20 + time.Duration(rnd.Int64N(int64(in.ttl/3))) {
		group := groups[rnd.IntN(len(groups))]
		f := fault{
			At: at, Kind: group[rnd.IntN(len(group))], Machine: rnd.IntN(in.machines), Member: rnd.IntN(in.members),
			For:   in.ttl/20 + time.Duration(rnd.Int64N(int64(in.ttl+in.ttl/2))),
			Name:  in.names[rnd.IntN(len(in.names))],
			Delay: 0.02 + 0.3*rnd.Float64(),
		}
		if rnd.IntN(2) == 0 && in.members > 1 && &group[0] == &linkFaults[0] {
			f.Member = -1
		}
		switch f.Kind {
		case "stop member", "stop leader", "kill member", "move leader", "defragment":
			if at < memberFree {
				continue
			}
			memberFree = at + f.For + in.ttl/2
		case "delete holder", "delete waiter", "delete prefix", "revoke lease", "compact", "drop":
			f.For = 0
		}
		f.For = min(f.For, duration-in.ttl/2-at)
		all = append(all, f)
	}
	return all
}
