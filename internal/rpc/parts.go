package rpc

import (
	"errors"

	"google.golang.org/grpc/codes"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file keeps requests about many keys within what etcd takes. Two limits of a server are its operator's to set:
// the operations in one Txn, and the size of a message. Neither can be asked for, so each Client learns them.

// maxOps is how many operations etcd takes in one Txn by default.
const maxOps = 128

// PartSize is how many operations this Client puts in one Txn.
func (c *Client) PartSize() int { return maxOps - int(c.fewer.Load()) }

// NestedPartSize is how many operations that are Txns themselves: etcd counts those inside, too, against what is left of the
// same number. It leaves room for three in each.
func (c *Client) NestedPartSize() int { return max(c.PartSize()-3, 1) }

// TooMuch reports whether err says that a Txn of n operations was too much for this etcd. From then on the Client sends
// half as many.
func (c *Client) TooMuch(err error, n int) bool {
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
		was := c.fewer.Load()
		if now := int64(maxOps - n/2); now <= was || c.fewer.CompareAndSwap(was, now) {
			return true
		}
	}
}

// InParts gives all to f, as much at a time as size says. A part that is refused goes again in halves: for its
// size, or for a key in it that this client may not touch, so that such a key does not stand in the way of the others.
// The error is the first.
func InParts[T any](c *Client, size func() int, all []T, f func(part []T) error) (first error) {
	for len(all) > 0 {
		part := all[:min(len(all), size())]
		all = all[len(part):]
		err := f(part)
		if n := len(part); n > 1 && (c.TooMuch(err, n) || errors.Is(err, rpctypes.ErrPermissionDenied)) {
			err = errors.Join(InParts(c, size, part[:n/2], f), InParts(c, size, part[n/2:], f))
		}
		if first == nil {
			first = err
		}
	}
	return first
}
