package etcdlock

import (
	"context"
	"fmt"
	"sync"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// kind is what one primitive differs in from another.
type kind struct {
	take, give string // the words for it, for errors
	notHeld    error  // why a value that was never taken, or was given back, holds nothing
	ticket     *queue.Kind
}

var (
	mutexKind = &kind{
		take: "lock", give: "unlock", notHeld: ErrNotHeld,
		ticket: &queue.Kind{Name: "mutex", Class: queue.Exclusive, Weight: 1, Released: ErrNotHeld, Handoff: true},
	}
	electionKind = &kind{
		take: "campaign", give: "resign", notHeld: ErrNotLeader,
		ticket: &queue.Kind{Name: "election", Class: queue.Exclusive, Weight: 1, Released: ErrNotLeader, Elects: true},
	}
	readerKind = &kind{
		take: "read-lock", give: "release", notHeld: ErrNotHeld,
		ticket: &queue.Kind{Name: "reader", Class: queue.Reader, Weight: 1, Released: ErrNotHeld},
	}
)

// named is what every primitive begins with: a name, the Session that queues for it, and the kind of its tickets.
type named struct {
	s    *Session
	name string
	kind *kind // nil in a value that nobody has made: see of
}

// of is the value's kind; a zero value has a Mutex's words.
func (n *named) of() *kind {
	if n.kind == nil {
		return mutexKind
	}
	return n.kind
}

// shown is the name as it is printed.
func (n *named) shown() string { return queue.Short(n.name) }

// notHeld is why a value holds nothing.
func (n *named) notHeld() error {
	if n.s != nil && n.s.over() != nil {
		return n.s.over()
	}
	return n.of().notHeld
}

// begin is what every call that can fail asks first, before it changes anything.
func (n *named) begin(ctx context.Context, verb string) error {
	switch {
	case n.s == nil:
		return fmt.Errorf("etcdlock: %s %q: no Session: make the value with NewMutex or its like, and a Session that "+
			"NewSession returned", verb, n.shown())
	case ctx == nil:
		return fmt.Errorf("etcdlock: %s %q: nil context: pass context.Background() if nothing bounds the call", verb, n.shown())
	case n.name == "":
		return ErrInvalidName
	}
	return nil
}

// needs checks what is given to a call that runs a function.
func (n *named) needs(ctx context.Context, verb string, fn func(context.Context) error) error {
	if err := n.begin(ctx, verb); err != nil {
		return err
	}
	if fn == nil {
		return fmt.Errorf("etcdlock: %s %q: nil function: there is nothing to run", verb, n.shown())
	}
	return nil
}

// failed words the error of a call.
func (n *named) failed(verb string, err error) error {
	return fmt.Errorf("etcdlock: %s %q: %w", verb, n.shown(), err)
}

// acquire queues and waits; locked tells who held when it was in vain.
func (n *named) acquire(ctx context.Context, value string, locked func(*queue.Contender) *LockedError) (*queue.Ticket, error) {
	t, by, _, err := n.s.tickets.Acquire(ctx, n.of().ticket, n.name, []string{n.name}, value)
	switch {
	case err == nil:
		return t, nil
	case by != nil:
		err = fmt.Errorf("%w: %w", err, locked(by))
	}
	return nil, n.failed(n.of().take, err)
}

// try takes it if nobody is in the way, and else says who is. seen is who was at the value's last try, guarded by mu: the
// next one asks for that ticket alone.
func (n *named) try(ctx context.Context, value string, mu *sync.Mutex, seen *queue.Seen) (*queue.Ticket, *queue.Contender, error) {
	mu.Lock()
	last := *seen
	mu.Unlock()
	t, by, _, err := n.s.tickets.Try(ctx, n.of().ticket, n.name, []string{n.name}, value, &last)
	mu.Lock()
	*seen = last
	mu.Unlock()
	if err != nil {
		return nil, nil, n.failed(n.of().take, err)
	}
	return t, by, nil
}

// lockedBy tells who is in the way.
func (n *named) lockedBy(by *queue.Contender) *LockedError {
	return &LockedError{Name: n.name, Holder: by.Value, Token: by.Rev, Key: by.Key, Class: by.Class()}
}

// work runs fn under the hold of t. The Session's Close waits for it.
func (n *named) work(ctx context.Context, t *queue.Ticket, fn func(ctx context.Context) error) error {
	if !t.BeginWork() {
		return n.s.over()
	}
	defer t.EndWork()
	work, stop := lease.NewWork(ctx, t.Hold())
	defer stop()
	return fn(work)
}

// soonAfter calls release with a context that ends a little after ctx, not with it: the end of ctx is what ends the work.
func soonAfter(ctx context.Context, release func(context.Context) error) error {
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		rpc.Sleep(rctx, afterwards)
		cancel()
	})()
	return release(rctx)
}

// list lists the queue of the name, which this Session need not be in, and how many of it hold.
func (n *named) list(ctx context.Context) (all []*queue.Contender, holders int, err error) {
	switch {
	case n.s.asking() != nil:
		return nil, 0, n.s.asking()
	case ctx.Err() != nil:
		return nil, 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.s.asks, cancel)()
	all, holders, _, err = queue.KeysOf(n.name).List(ctx, n.s.client)
	if err != nil && n.s.asking() != nil {
		err = n.s.asking()
	}
	return all, holders, err
}

// contenders are those who hold, and those who wait, both in the order of their turns. verb is for the error.
func (n *named) contenders(ctx context.Context, verb string) (holders, waiters []Contender, err error) {
	if err := n.begin(ctx, verb); err != nil {
		return nil, nil, err
	}
	all, held, err := n.list(ctx)
	if err != nil {
		return nil, nil, n.failed(verb, err)
	}
	for i, c := range all {
		if i < held {
			holders = append(holders, contender(c))
		} else {
			waiters = append(waiters, contender(c))
		}
	}
	return holders, waiters, nil
}
