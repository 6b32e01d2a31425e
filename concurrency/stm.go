package concurrency

import (
	"context"

	v3 "go.etcd.io/etcd/client/v3"
	etcd "go.etcd.io/etcd/client/v3/concurrency"
)

// Software transactional memory has nothing to do with sessions and locks. It is etcd's own.

// STM is etcd's.
type STM = etcd.STM

// Isolation is etcd's.
type Isolation = etcd.Isolation

// STMOption configures a transaction. It is not etcd's own type, which clients before 3.7 do not name.
type STMOption func(*stmOptions)

type stmOptions struct {
	iso      Isolation
	ctx      context.Context
	prefetch []string
}

// The levels of isolation are etcd's.
const (
	SerializableSnapshot = etcd.SerializableSnapshot
	Serializable         = etcd.Serializable
	RepeatableReads      = etcd.RepeatableReads
	ReadCommitted        = etcd.ReadCommitted
)

// WithIsolation sets the level of isolation; SerializableSnapshot is the default.
func WithIsolation(lvl Isolation) STMOption { return func(so *stmOptions) { so.iso = lvl } }

// WithAbortContext sets the context of the transaction's requests; the client's is the default.
func WithAbortContext(ctx context.Context) STMOption { return func(so *stmOptions) { so.ctx = ctx } }

// WithPrefetch names keys to read before apply begins.
func WithPrefetch(keys ...string) STMOption {
	return func(so *stmOptions) { so.prefetch = append(so.prefetch, keys...) }
}

// NewSTM is etcd's.
func NewSTM(c *v3.Client, apply func(STM) error, so ...STMOption) (*v3.TxnResponse, error) {
	opts := stmOptions{ctx: c.Ctx()}
	for _, f := range so {
		f(&opts)
	}
	prefetch := etcd.WithPrefetch(opts.prefetch...)
	return etcd.NewSTM(c, apply, etcd.WithIsolation(opts.iso), etcd.WithAbortContext(opts.ctx), prefetch)
}

// NewSTMRepeatable is etcd's.
//
// Deprecated: as there; use NewSTM with WithIsolation.
func NewSTMRepeatable(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return etcd.NewSTM(c, apply, etcd.WithAbortContext(ctx), etcd.WithIsolation(etcd.RepeatableReads))
}

// NewSTMSerializable is etcd's.
//
// Deprecated: as there; use NewSTM with WithIsolation.
func NewSTMSerializable(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return etcd.NewSTM(c, apply, etcd.WithAbortContext(ctx), etcd.WithIsolation(etcd.Serializable))
}

// NewSTMReadCommitted is etcd's.
//
// Deprecated: as there; use NewSTM with WithIsolation.
func NewSTMReadCommitted(ctx context.Context, c *v3.Client, apply func(STM) error) (*v3.TxnResponse, error) {
	return etcd.NewSTM(c, apply, etcd.WithAbortContext(ctx), etcd.WithIsolation(etcd.ReadCommitted))
}
