// Command etcdsync shows how little is between this library and the interface
// of the etcdsync package, for those who come from it: New with a key, a TTL in
// seconds and endpoints; a Mutex without contexts that any goroutine may
// unlock; the identity host-pid; retries inside; a debug logger.
//
//	go run ./examples/etcdsync [-endpoints 127.0.0.1:2379]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
)

// Mutex is the look-alike. What it hides, and why a new program should use the
// Mutex underneath: without a context a wait cannot be given up, and nobody is
// told when the hold is lost.
type Mutex struct {
	session *etcdlock.Session
	mutex   *etcdlock.Mutex
	close   func() error
}

// New connects and asks for a lease. A nil debug is silence.
func New(key string, ttlSeconds int, endpoints []string, debug io.Writer) (*Mutex, error) {
	client, err := embedded.Dial(endpoints...)
	if err != nil {
		return nil, err
	}
	opts := []etcdlock.Option{etcdlock.WithTTL(time.Duration(ttlSeconds) * time.Second)} // the identity is host-pid
	if debug != nil {
		opts = append(opts, etcdlock.WithLogger(slog.New(slog.NewTextHandler(debug, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	session, err := etcdlock.NewSession(ctx, client, opts...)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &Mutex{session: session, mutex: etcdlock.NewMutex(session, key), close: client.Close}, nil
}

// Lock waits for the lock; what can be retried is retried inside.
func (m *Mutex) Lock() error { return m.mutex.Lock(context.Background()) }

// Unlock releases it, from any goroutine. ErrLost says that it had been lost
// before: the one thing here that etcdsync would not have told.
func (m *Mutex) Unlock() error { return m.mutex.Unlock(context.Background()) }

// Close has no counterpart in etcdsync, whose leases end by themselves.
func (m *Mutex) Close() error { return errors.Join(m.session.Close(), m.close()) }

func main() {
	endpoints := flag.String("endpoints", "", "comma-separated endpoints (default: an etcd of its own)")
	flag.Parse()
	if err := run(*endpoints); err != nil {
		fmt.Fprintln(os.Stderr, "etcdsync:", err)
		os.Exit(1)
	}
}

func run(endpoints string) (err error) {
	client, stop, err := embedded.Client(context.Background(), endpoints)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	m, err := New("/mylock", 10, client.Endpoints(), os.Stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Lock(); err != nil {
		return err
	}
	fmt.Println("locked by", m.session.Identity())
	unlocked := make(chan error)
	go func() { unlocked <- m.Unlock() }()
	if err := <-unlocked; err != nil {
		return err
	}
	fmt.Println("unlocked by another goroutine")
	return nil
}
