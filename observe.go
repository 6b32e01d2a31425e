package etcdlock

import (
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// backlog is how many states a reader may be behind before they are dropped for the newest.
const backlog = 64

// Observe yields who leads: the state at the moment, and every later one in order, the zero Leader for nobody. A reader
// that keeps up gets every state; one that falls behind by more than 64 gets the newest and holds up nobody. It never
// goes backwards within one history of the cluster: a state is never older than the one before. Where a member stands still or
// the watch breaks, another watch begins with the state at that moment: states that had come and gone by then are not told.
//
// Watch errors, compaction, the loss of members and a restored store are mended inside. It ends when the caller breaks,
// and otherwise with one last pair that carries why: ctx.Err(), ErrClosed when the Session closes, ErrClientClosed,
// ErrInvalidName, or a refusal of etcd's that no retry can mend.
func (e *Election) Observe(ctx context.Context) iter.Seq2[Leader, error] {
	return func(yield func(Leader, error) bool) {
		if err := e.begin(ctx, "observe"); err != nil {
			yield(Leader{}, err)
			return
		}
		octx, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(e.s.asks, cancel)()
		states := newStates()
		// The goroutine that follows etcd belongs to this call, which waits for it before it returns.
		done := make(chan error, 1)
		go func() {
			done <- e.s.tickets.Observe(octx, e.name, func(first *queue.Contender) { states.put(leader(first)) })
		}()
		ended := false
		defer func() {
			cancel()
			if !ended {
				<-done // told already, or the caller broke off
			}
		}()
		for {
			var err error
			select {
			case <-states.news:
			case err = <-done:
				ended = true
			}
			for _, l := range states.take() {
				if !yield(l, nil) {
					return
				}
			}
			if !ended {
				continue
			}
			switch {
			case ctx.Err() != nil:
				err = ctx.Err()
			case e.s.asking() != nil:
				err = e.s.asking()
			}
			yield(Leader{}, fmt.Errorf("etcdlock: observe %q: %w", e.shown(), err))
			return
		}
	}
}

// states are those that a reader has not taken yet.
type states struct {
	news chan struct{}

	mu    sync.Mutex // guards queue; a leaf
	queue []Leader
}

func newStates() *states { return &states{news: make(chan struct{}, 1)} }

// take empties the queue.
func (s *states) take() []Leader {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue = nil
	return q
}

// put queues a state. For a reader that has fallen behind, it drops those before.
func (s *states) put(l Leader) {
	s.mu.Lock()
	if len(s.queue) == backlog {
		s.queue = s.queue[:0]
	}
	s.queue = append(s.queue, l)
	s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
}
