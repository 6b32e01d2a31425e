package task

import (
	"sync"
	"time"
)

// InOrder calls functions that belong to somebody else, one after the other, and keeps nobody waiting for them: a goroutine
// does, while there are any. What is more than most is dropped, so that a function which never returns does not fill the
// memory.
type InOrder struct {
	most int

	mu      sync.Mutex // guards what follows; a leaf, and nothing is called under it
	waiting []func()
	running bool
	dropped uint64
	over    bool          // no more is taken
	idle    chan struct{} // closed when none is left, made when somebody waits for that
}

// NewInOrder returns one that lets up to most functions wait.
func NewInOrder(most int) *InOrder { return &InOrder{most: most} }

// Put has f called after all that were put before. It says false, and forgets f, once End was called.
func (o *InOrder) Put(f func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over:
		return false
	case len(o.waiting) == o.most:
		o.dropped++
		return true
	}
	o.waiting = append(o.waiting, f)
	if !o.running {
		o.running = true
		go o.work() // ends with the last of them, which End awaits for a while
	}
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
			if o.idle != nil {
				close(o.idle)
			}
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

// End takes no more, and waits for those that were put until they have returned, for limit at most: one may block for ever,
// and one may be what has called for the end. It is called once.
func (o *InOrder) End(limit time.Duration) {
	o.mu.Lock()
	o.over = true
	if !o.running {
		o.mu.Unlock()
		return
	}
	o.idle = make(chan struct{})
	idle := o.idle
	o.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
