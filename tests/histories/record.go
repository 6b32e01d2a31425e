package main

import (
	"encoding/json"
	"errors"
	"io"
	"sync"

	"context"

	"github.com/etcdlock/etcdlock"
)

// This file is the recorder: what a machine tells about each call it made.

// What a record is about. A call is recorded when it has returned, "alive" whenever a holder asked whether it still
// holds and was told yes.
const (
	isAcquire = "acquire"
	isAlive   = "alive"   // the hold's Context was asked and was not over
	isProof   = "proof"   // Verify returned nil
	isGuarded = "guarded" // a transaction under the guard committed
	isEnd     = "end"     // Unlock, Resign, or the return of the function under Do
	isObserve = "observe"
	isOther   = "other" // a call that changes no hold
)

// record is one line of a history. Times are on one clock for all processes, in nanoseconds.
type record struct {
	Kind    string `json:"k"`
	What    string `json:"w,omitempty"` // the method
	Worker  string `json:"by"`
	Name    string `json:"n"`
	Call    int64  `json:"c"`
	Return  int64  `json:"r,omitempty"`
	Due     int64  `json:"d,omitempty"` // when the call's context ended, if it did
	Token   int64  `json:"t,omitempty"`
	Key     string `json:"key,omitempty"`
	Value   string `json:"v,omitempty"`
	Rev     int64  `json:"rev,omitempty"` // of the deletion, where a foreign client's call was answered with it
	Outcome string `json:"o,omitempty"`   // empty for nil
	Stay    int64  `json:"st,omitempty"`  // of an end: for how long after the call the lock is to stay taken
	Class   string `json:"cl,omitempty"`  // of an acquisition: with whom it shares, as Contender.Class has it
	Tenant  string `json:"s,omitempty"`   // of a Mutex's acquisition: the Session, if that lingers
	Foreign bool   `json:"f,omitempty"`
}

// recorder writes records, one JSON document a line. It writes each at once: a machine may be killed at any moment.
type recorder struct {
	mu  sync.Mutex
	enc *json.Encoder
}

func newRecorder(w io.Writer) *recorder { return &recorder{enc: json.NewEncoder(w)} }

func (r *recorder) add(rec record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.enc.Encode(rec) // the reader is gone when the run is
}

// outcome names the kind of an error. Those that no documented kind covers keep their text.
func outcome(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, etcdlock.ErrClosed):
		return "closed"
	case errors.Is(err, etcdlock.ErrLost):
		return "lost"
	case errors.Is(err, etcdlock.ErrNotHeld), errors.Is(err, etcdlock.ErrNotLeader):
		return "not held"
	case errors.Is(err, etcdlock.ErrNoLeader):
		return "vacant"
	case ctx.Err() != nil && errors.Is(err, ctx.Err()) && errors.Is(err, etcdlock.ErrLocked):
		return "over, locked"
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return "over"
	case errors.Is(err, etcdlock.ErrLocked):
		return "locked"
	}
	return "error: " + err.Error()
}
