package memetcd

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file has the streams that watches go over, each to one member. What the client makes of them is its own code.

// watchStream is one stream, and the client's end of it.
type watchStream struct {
	grpc.ClientStream
	ctx    context.Context
	c      *conn
	member int

	// Guarded by the server's mu.
	watches map[int64]*watcher
	nextID  int64
	out     []outgoing
	more    chan struct{} // closed when there is more in out
	delay   time.Duration // of every answer
	mute    bool          // nothing arrives any more
	broken  error
}

type outgoing struct {
	at   time.Time
	resp *pb.WatchResponse
}

func (c *conn) Watch(ctx context.Context, _ ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	if c.client.Err() != nil {
		return nil, errClosed
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	select {
	case <-c.s.over:
		return nil, errAway
	default:
	}
	w := &watchStream{ctx: ctx, c: c, member: c.pickLocked(), watches: map[int64]*watcher{}, more: make(chan struct{})}
	c.s.streams[w] = struct{}{}
	context.AfterFunc(ctx, func() {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		delete(c.s.streams, w)
	})
	return w, nil
}

// Watches is how many watches there are.
func (s *Server) Watches() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		n += len(w.watches)
	}
	return n
}

// BreakStreams ends the watch streams that are there, of one client or (0) of all, as a connection that breaks does.
func (s *Server) BreakStreams(client int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		if client == 0 || w.c.id == client {
			w.breakLocked(errAway)
		}
	}
}

// MuteStreams lets nothing more arrive over the watch streams that are there: the client is not told.
func (s *Server) MuteStreams(client int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		if client == 0 || w.c.id == client {
			w.mute = true
		}
	}
}

// DelayStreams lets every later answer over the watch streams that are there take that long.
func (s *Server) DelayStreams(client int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.streams {
		if client == 0 || w.c.id == client {
			w.delay = d
		}
	}
}

func (w *watchStream) breakLocked(err error) {
	w.broken = err
	delete(w.c.s.streams, w)
	close(w.more)
	w.more = make(chan struct{})
}

// Send takes what the client asks of the stream.
func (w *watchStream) Send(r *pb.WatchRequest) error {
	s := w.c.s
	switch {
	case r.GetCreateRequest() != nil:
		q := r.GetCreateRequest()
		_, v := w.c.judgeAt(Request{Kind: Watch, Member: w.member, Keys: []string{string(q.Key)}, Body: q})
		go w.create(q, v) // in its own time, so that the client is not held up
	case r.GetCancelRequest() != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		if id := r.GetCancelRequest().WatchId; w.watches[id] != nil {
			delete(w.watches, id)
			w.sayLocked(&pb.WatchResponse{Header: s.headerLocked(s.appliedLocked(w.member), w.member), WatchId: id, Canceled: true})
		}
	case r.GetProgressRequest() != nil:
		s.mu.Lock()
		defer s.mu.Unlock()
		w.sayLocked(&pb.WatchResponse{Header: s.headerLocked(s.appliedLocked(w.member), w.member), WatchId: -1})
	}
	return nil
}

func (w *watchStream) create(q *pb.WatchCreateRequest, v Verdict) {
	s := w.c.s
	if v.Hold != nil {
		select {
		case <-v.Hold:
		case <-s.over:
			return
		case <-w.ctx.Done():
			return
		}
	}
	if v.Lost || !s.wait(w.ctx, v.Delay) {
		if v.Lost {
			s.mu.Lock()
			w.mute = true // what follows on a stream does not overtake what is lost: TCP would wait
			s.mu.Unlock()
		}
		return
	}
	s.awake(w.member)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.broken != nil {
		return
	}
	w.mute = w.mute || v.AnswerLost
	w.delay = max(w.delay, v.AnswerDelay)
	cur := s.appliedLocked(w.member)
	if v.Refuse != nil {
		w.sayLocked(&pb.WatchResponse{
			Header: s.headerLocked(cur, w.member), WatchId: -1, Created: true, Canceled: true, CancelReason: v.Refuse.Error(),
		})
		return
	}
	id := w.nextID
	w.nextID++
	a := &watcher{
		id: id, from: q.Key, to: q.RangeEnd, next: q.StartRevision, prev: q.PrevKv, behind: q.StartRevision != 0 && q.StartRevision <= cur,
		noPut: slices.Contains(q.Filters, pb.WatchCreateRequest_NOPUT), noDelete: slices.Contains(q.Filters, pb.WatchCreateRequest_NODELETE),
	}
	if a.next == 0 {
		a.next = cur + 1
	}
	w.watches[id] = a
	w.sayLocked(&pb.WatchResponse{Header: s.headerLocked(cur, w.member), WatchId: id, Created: true})
	if a.behind {
		time.AfterFunc(catchUp, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			w.catchUpLocked(a)
		})
		return
	}
	w.pumpLocked()
}

// sayLocked puts an answer on its way.
func (w *watchStream) sayLocked(resp *pb.WatchResponse) {
	if w.mute {
		return
	}
	w.out = append(w.out, outgoing{time.Now().Add(w.delay), resp})
	if len(w.out) == 1 {
		close(w.more)
		w.more = make(chan struct{})
	}
}

// Recv waits for the next answer.
func (w *watchStream) Recv() (*pb.WatchResponse, error) {
	s := w.c.s
	for {
		s.mu.Lock()
		broken, more := w.broken, w.more
		var next *outgoing
		if len(w.out) > 0 && broken == nil {
			next = &w.out[0]
		}
		s.mu.Unlock()
		switch {
		case broken != nil:
			return nil, broken
		case w.ctx.Err() != nil:
			return nil, status.FromContextError(w.ctx.Err()).Err()
		case next != nil:
			if !s.wait(w.ctx, time.Until(next.at)) {
				continue
			}
			s.mu.Lock()
			w.out = w.out[1:]
			s.mu.Unlock()
			return next.resp, nil
		}
		select {
		case <-more:
		case <-w.ctx.Done():
		case <-w.c.client.Done():
			return nil, errClosed
		}
	}
}

// CloseSend says that no more is sent.
func (w *watchStream) CloseSend() error { return nil }
