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

	mu      sync.Mutex // guards what follows; a leaf, which is taken under the queue's, too; nothing is called under it
	waiting []func()
	running bool
	dropped uint64
	idle    chan struct{} // closed when none is left, made when somebody waits for that
}

// NewInOrder returns one that lets up to most functions wait.
func NewInOrder(most int) *InOrder { return &InOrder{most: most} }

// Put has f called after all that were put before.
func (o *InOrder) Put(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == o.most {
		o.dropped++
		return
	}
	o.waiting = append(o.waiting, f)
	if !o.running {
		o.running = true
		go o.work() // ends with the last of them, which Drain awaits for a while
	}
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
				o.idle = nil
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

// Drain waits until all that were put have returned, for limit at most: one may block for ever, and one may be what has called
// for it. It is called once.
func (o *InOrder) Drain(limit time.Duration) {
	o.mu.Lock()
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
