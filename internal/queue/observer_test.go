package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/task"
)

func TestWithoutAnObserverNothingIsAllocatedForOne(t *testing.T) {
	q := New(nil, task.New(), nil, nil, 0, nil)
	l := q.Use(lease.New(0x1000, time.Minute, 0, 60, lease.Now()), false)
	defer l.End(lease.ErrLost)
	k := &Kind{Class: Exclusive, Weight: 1, Released: errors.New("released"), Handoff: true}
	s, _ := q.newSet(l, k, []string{"a"}, "x")
	ticket := s[0]
	ticket.hold = lease.NewHold(l.Lease, k.Released)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		w := q.waitBegun(context.Background(), k, "a", false)
		ticket.beginHoldLocked()
		q.waitEnded(context.Background(), w, ticket, nil, "", nil)
		ticket.endHoldLocked(left)
	}))
	c := q.Counts()
	require.Equal(t, c.Waits[Got], c.Holds[Released])
	require.NotZero(t, c.Waits[Got])
	require.Zero(t, c.Held)
	require.Zero(t, c.Waiting)
}
