package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// This file gives errors the words of the connection. The etcd client repeats a request over a connection that is down,
// and says nothing of that until the request's own time is over: then all that is left is "deadline exceeded".

// downLimit bounds the question. A connection that failed answers at once, from memory: nothing is sent.
const downLimit = 100 * time.Millisecond

// Down says what is wrong with the connection to etcd: the endpoints, its state, and why it could not be made the last
// time. It is nil while the connection is up, and for a client without one, as in tests.
//
// No mutex may be held, and no renewal may wait for it.
func (c *Client) Down() error {
	conn := c.ActiveConnection()
	if conn == nil || c.Closed() {
		return nil
	}
	state := conn.GetState()
	if state == connectivity.Ready || state == connectivity.Shutdown {
		return nil
	}
	where := fmt.Sprintf("no connection to %s (%s)", strings.Join(c.Endpoints(), ", "), state)
	if state == connectivity.TransientFailure { // else it would wait for the connection, which is being made
		ctx, cancel := context.WithTimeout(c.Ctx(), downLimit)
		defer cancel()
		// Not by way of the etcd client, which would try again and again.
		if _, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}); err != nil {
			return fmt.Errorf("%s: %s", where, status.Convert(err).Message())
		}
	}
	return errors.New(where)
}

// Why is err with the connection's words, where err says no more than that there was no answer.
func (c *Client) Why(err error) error {
	if !errors.Is(err, ErrUnanswered) {
		return err
	}
	if down := c.Down(); down != nil {
		return fmt.Errorf("%w: %w", err, down)
	}
	return err
}

// Over is the error of a call whose context ended: it matches the context's error and, where etcd was the reason for the
// delay, tells what etcd or the connection said last.
func (c *Client) Over(ctx context.Context, last error) error {
	if last = c.Why(last); last == nil {
		last = c.Down()
	}
	if last == nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w; last from etcd: %w", ctx.Err(), last)
}
