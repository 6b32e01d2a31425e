package faultproxy

import (
	"net"
	"sync"
	"time"
)

// link is one connection through the proxy: a queue of bytes for each direction.
type link struct {
	client, server net.Conn
	up, down       *queue

	mu       sync.Mutex
	stranded bool
}

func newLink(client, server net.Conn) *link {
	return &link{client: client, server: server, up: newQueue(), down: newQueue()}
}

func (l *link) apply(r rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stranded {
		return // out of the proxy's hands: only deliver moves it
	}
	l.up.set(r.hold&ToServer != 0, r.delays[0])
	l.down.set(r.hold&ToClient != 0, r.delays[1])
}

// strand closes the client's end and keeps the server's, with what is held.
func (l *link) strand() {
	l.mu.Lock()
	l.stranded = true
	l.mu.Unlock()
	l.up.set(true, 0)
	l.down.close() // answers have nobody to go to
	l.client.Close()
}

func (l *link) isStranded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stranded
}

func (l *link) close() {
	l.up.close()
	l.down.close()
	l.client.Close()
	l.server.Close()
}

// run forwards until either end closes; a stranded link lives until closed.
func (l *link) run() {
	var wg sync.WaitGroup
	wg.Go(func() {
		l.up.fill(l.client)
		if !l.isStranded() {
			l.close()
		}
	})
	wg.Go(func() {
		l.down.fill(l.server)
		// A stranded link goes on reading answers into a closed queue until
		// the server's end closes, so that the server is never the one to wait.
		l.close()
	})
	wg.Go(func() {
		l.up.drain(l.server)
		l.close()
	})
	wg.Go(func() {
		l.down.drain(l.client)
		if !l.isStranded() {
			l.close()
		}
	})
	wg.Wait()
}

type chunk struct {
	data []byte
	sent time.Time
}

// queue is the bytes of one direction. It takes all that comes: the suites send
// little, and a bound would turn a held direction into back-pressure, which is
// another fault than the one asked for.
type queue struct {
	mu     sync.Mutex
	chunks []chunk
	bytes  int
	hold   bool
	delay  time.Duration
	closed bool
	wake   chan struct{} // closed and replaced at every change
}

func newQueue() *queue { return &queue{wake: make(chan struct{})} }

func (q *queue) changedLocked() {
	close(q.wake)
	q.wake = make(chan struct{})
}

func (q *queue) set(hold bool, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hold, q.delay = hold, delay
	q.changedLocked()
}

func (q *queue) release() { q.set(false, 0) }

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		q.changedLocked()
	}
}

// size is what waits. A chunk that is being written has left: counted here, one that was let through just before a
// hold would look like one that the hold keeps back.
func (q *queue) size() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.chunks {
		n += len(c.data)
	}
	return n
}

func (q *queue) fill(from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		q.mu.Lock()
		if n > 0 && !q.closed {
			q.chunks = append(q.chunks, chunk{append([]byte(nil), buf[:n]...), time.Now()})
			q.bytes += n
			q.changedLocked()
		}
		q.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// drain writes what is due until the queue closes or the writing fails.
func (q *queue) drain(to net.Conn) {
	for {
		data, wake, wait, closed := q.next()
		switch {
		case closed:
			return
		case data != nil:
			if _, err := to.Write(data); err != nil {
				return
			}
			q.written(len(data))
		case wait > 0:
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-wake:
			}
			t.Stop()
		default:
			<-wake
		}
	}
}

// next takes the first chunk if it is due; otherwise it says how long to wait,
// 0 for until something changes.
func (q *queue) next() (data []byte, wake chan struct{}, wait time.Duration, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.hold || len(q.chunks) == 0 {
		return nil, q.wake, 0, q.closed
	}
	if wait := q.delay - time.Since(q.chunks[0].sent); q.delay > 0 && wait > 0 {
		return nil, q.wake, wait, false
	}
	data = q.chunks[0].data
	q.chunks = q.chunks[1:]
	return data, q.wake, 0, false
}

func (q *queue) written(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n // only now: an empty queue means that all of it was written
	q.changedLocked()
}

func (q *queue) waitEmpty() {
	for {
		q.mu.Lock()
		done, wake := q.bytes == 0 || q.closed, q.wake
		q.mu.Unlock()
		if done {
			return
		}
		<-wake
	}
}
