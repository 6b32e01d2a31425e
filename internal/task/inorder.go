package task

import "sync"

// InOrder calls functions that belong to somebody else, one after the other, and keeps nobody waiting for them: one
// goroutine of the Group does, while there are any. What is more than most is dropped, so that a function which never
// returns does not fill the memory.
type InOrder struct {
	tasks *Group
	most  int

	mu      sync.Mutex // guards what follows; only the Group's is taken under it, and nothing is called
	waiting []func()
	running bool
	dropped uint64
}

// NewInOrder returns one that lets up to most functions wait.
func NewInOrder(tasks *Group, most int) *InOrder { return &InOrder{tasks: tasks, most: most} }

// Put has f called after all that were put before. It says false, and forgets f, once the Group is stopped; all the others
// have returned by then.
func (o *InOrder) Put(f func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == o.most {
		o.dropped++
		return true
	}
	if !o.running {
		if o.running = o.tasks.Go(o.work); !o.running {
			return false
		}
	}
	o.waiting = append(o.waiting, f)
	return true
}

// Dropped returns how many were dropped, because too many waited.
func (o *InOrder) Dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dropped
}

func (o *InOrder) work() {
	for {
		o.mu.Lock()
		if len(o.waiting) == 0 {
			o.waiting, o.running = nil, false
			o.mu.Unlock()
			return
		}
		f := o.waiting[0]
		o.waiting[0] = nil
		o.waiting = o.waiting[1:]
		o.mu.Unlock()
		f()
	}
}
