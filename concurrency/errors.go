package concurrency

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	etcd "go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock"
)

// The errors are etcd's own values, so that code which compares with those of either package finds them.
var (
	ErrLocked         = etcd.ErrLocked
	ErrSessionExpired = etcd.ErrSessionExpired
	ErrLockReleased   = etcd.ErrLockReleased

	ErrElectionNotLeader = etcd.ErrElectionNotLeader
	ErrElectionNoLeader  = etcd.ErrElectionNoLeader
)

// translated is the error that etcd's package returns in the place of err. Callers of that package compare with ==, so
// what it returns bare is bare here.
func translated(ctx context.Context, err error) error {
	var refusal rpctypes.EtcdError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, etcdlock.ErrClosed), errors.Is(err, etcdlock.ErrLeaseLost), errors.Is(err, etcdlock.ErrNoLease):
		return ErrSessionExpired
	case errors.Is(err, etcdlock.ErrLost):
		return err // there is nothing like it there
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return ctx.Err()
	case errors.As(err, &refusal):
		return refusal
	}
	return err
}
