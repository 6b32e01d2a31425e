package rpc

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file sorts the errors of etcd and of its client.

// ErrClientClosed is final: nothing can be asked any more.
var ErrClientClosed = errors.New("etcdlock: the etcd client is closed")

// ErrUnanswered stands for the time limit of a single attempt, which must not look like the caller's own deadline.
var ErrUnanswered = errors.New("etcd did not answer in time")

// Unanswered replaces the end of an attempt's own context.
func Unanswered(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ErrUnanswered
	}
	return err
}

// timedOut reports whether the server says that the time for the request was over.
func timedOut(err error) bool {
	return err != nil && (errors.Is(err, rpctypes.ErrTimeout) || code(err) == codes.DeadlineExceeded)
}

// Transient reports whether the same request may succeed a little later. Everything else (permissions, a full store, a
// request that is too large) is told to the caller at once. Some go on all the same: a deletion that has left its caller, a
// renewal, and the grant of the next lease, since permissions come back; and InParts, with less at a time.
func Transient(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnanswered) {
		return true
	}
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown, codes.Aborted:
		return true
	case codes.ResourceExhausted: // ErrNoSpace is final, a busy server is not
		return errors.Is(err, rpctypes.ErrTooManyRequests)
	}
	return false
}

// code is the gRPC code of an error of the etcd client, which has two forms of them.
func code(err error) codes.Code {
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}

// refusal makes the end of a watch an error that Transient understands: etcd sends the reason as a text.
func refusal(err error) error {
	if strings.Contains(err.Error(), "permission denied") {
		return rpctypes.ErrPermissionDenied
	}
	return ErrUnanswered
}

// outdated reports whether the server refuses the login that the stream was opened with: its token has expired, or
// somebody has changed users or roles since. For the next stream the client logs in anew.
func outdated(err error) bool {
	for _, why := range []error{rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrUserEmpty} {
		if strings.Contains(err.Error(), why.Error()) {
			return true
		}
	}
	return false
}
