package etcdlock

import (
	"errors"

	"google.golang.org/grpc/codes"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file keeps requests about many keys within what etcd takes. Two limits of a server are its operator's to set:
// the operations in one Txn, and the size of a message. Neither can be asked for, so each Session learns them.

// maxOps is how many operations etcd takes in one Txn by default.
const maxOps = 128

// partSize is how many operations this Session puts in one Txn.
func (s *Session) partSize() int { return maxOps - int(s.fewer.Load()) }

// tooMuch reports whether err says that a Txn of n operations was too much for this etcd. From then on the Session sends
// half as many.
func (s *Session) tooMuch(err error, n int) bool {
	switch {
	case err == nil || n < 2:
		return false
	case errors.Is(err, rpctypes.ErrTooManyOps), errors.Is(err, rpctypes.ErrRequestTooLarge):
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrTooManyRequests):
		return false
	case code(err) != codes.ResourceExhausted: // a message beyond what one of the two sides was set to
		return false
	}
	for {
		was := s.fewer.Load()
		if now := int64(maxOps - n/2); now <= was || s.fewer.CompareAndSwap(was, now) {
			return true
		}
	}
}

// inParts gives all to f, as much at a time as fits in one Txn. A part that is refused goes again in halves: for its
// size, or for a key in it that this client may not touch, so that such a key does not stand in the way of the others.
// The error is the first.
func inParts[T any](s *Session, all []T, f func(part []T) error) (first error) {
	for len(all) > 0 {
		part := all[:min(len(all), s.partSize())]
		all = all[len(part):]
		err := f(part)
		if n := len(part); n > 1 && (s.tooMuch(err, n) || errors.Is(err, rpctypes.ErrPermissionDenied)) {
			err = errors.Join(inParts(s, part[:n/2], f), inParts(s, part[n/2:], f))
		}
		if first == nil {
			first = err
		}
	}
	return first
}
