// Package task owns the goroutines of one Session and says until when anybody waits for anything. It is a leaf: it
// imports nothing of ours.
package task

import (
	"context"
	"maps"
	"sync"
)

// Group is the goroutines of one Session, and the work of its callers that its end waits for.
type Group struct {
	// These never change. Each is safe for concurrent use by itself.
	closing context.Context
	shut    context.CancelCauseFunc
	back    context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	// mu guards what follows. It may be taken under the queue's or an Aside's, and nothing is taken or cancelled under it.
	mu      sync.Mutex
	begun   bool                         // the end has begun
	asked   bool                         // Working was called
	stopped bool                         // nothing is started any more
	working map[context.Context]struct{} // the holds under which callers run functions
	idle    chan struct{}                // closed when none is left, made when somebody waits for that
}

// New returns a group that lives until Stop.
func New() *Group {
	g := &Group{working: make(map[context.Context]struct{})}
	g.closing, g.shut = context.WithCancelCause(context.Background())
	g.back, g.stop = context.WithCancel(context.Background())
	return g
}

// Closing is over, with its cause, once the end has begun: nobody waits for anything from then on.
func (g *Group) Closing() context.Context { return g.closing }

// Back is for requests of the background. It is over at the end of the end.
func (g *Group) Back() context.Context { return g.back }

// Shut begins the end. The first cause stays.
func (g *Group) Shut(cause error) {
	g.mu.Lock()
	g.begun = true
	g.mu.Unlock()
	g.shut(cause)
}

// Go starts a goroutine that Stop awaits. It starts nothing, and says so, when Stop no longer would.
func (g *Group) Go(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopped {
		return false
	}
	g.wg.Go(f)
	return true
}

// Stop ends the background and waits for every goroutine.
func (g *Group) Stop() {
	g.mu.Lock()
	g.stopped = true
	g.mu.Unlock()
	g.stop()
	g.wg.Wait()
}

// Begin notes a function of a caller that runs until hold ends, and End that it has ended. Once the end of the group has
// begun there are no more of them: then Begin says false.
func (g *Group) Begin(hold context.Context) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.begun {
		return false
	}
	g.working[hold] = struct{}{}
	return true
}

// BeginRelease notes what goes on for a release until hold ends. Those may begin, and are waited for, until Working is called.
func (g *Group) BeginRelease(hold context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.asked {
		g.working[hold] = struct{}{}
	}
}

// End is the end of what Begin or BeginRelease began.
func (g *Group) End(hold context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.working, hold)
	if len(g.working) == 0 && g.idle != nil {
		close(g.idle)
		g.idle = nil
	}
}

// Working returns a channel that is closed when the functions have ended that run; nil if there are none. With held
// only those count whose holds last: nothing is given back that the others might need. It is called once.
func (g *Group) Working(held bool) (ended <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked = true
	if held {
		maps.DeleteFunc(g.working, func(hold context.Context, _ struct{}) bool { return hold.Err() != nil })
	}
	if len(g.working) > 0 {
		g.idle = make(chan struct{})
	}
	return g.idle
}

// Aside runs one kind of work in the background, one run at a time. What is asked for during a run begins after it,
// since that run may have passed by already what it is asked for. The zero value is ready.
type Aside struct {
	mu      sync.Mutex // guards what follows; only the Group's is taken under it
	running bool
	next    func()
}

// Run has f run in the background, soon.
func (a *Aside) Run(g *Group, f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = f
	if !a.running {
		a.running = g.Go(a.work)
	}
}

func (a *Aside) work() {
	for {
		a.mu.Lock()
		f := a.next
		a.next, a.running = nil, f != nil
		a.mu.Unlock()
		if f == nil {
			return
		}
		f()
	}
}
