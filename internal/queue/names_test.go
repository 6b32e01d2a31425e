package queue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// leased returns a lease as Use makes one.
func leased(t *testing.T, id int64) *Lease {
	t.Helper()
	l := lease.New(0x1000, time.Minute, 0, 60, lease.Now())
	t.Cleanup(func() { l.End(lease.ErrLost) })
	l.ID = clientv3.LeaseID(0x1000 + 0x10*id)
	return &Lease{Lease: l, tickets: map[string]*Ticket{}}
}

func TestACallThatIsLateWithItsLeaseTakesNobodysName(t *testing.T) {
	before, now := leased(t, 1), leased(t, 2)
	taken := map[*Lease]map[uint64]bool{before: {}, now: {}}
	var c counter
	for _, l := range []*Lease{before, now, before, now, before, now} {
		n := c.takeLocked(l, l == now)
		require.False(t, taken[l][n], "%d is taken", n)
		taken[l][n] = true
	}
}

func TestANameIsUsedAgainOnceItsTicketIsGoneUnlessItIsBurnt(t *testing.T) {
	l := leased(t, 1)
	var c counter
	require.EqualValues(t, 1, c.takeLocked(l, true))
	require.EqualValues(t, 2, c.takeLocked(l, true))
	c.giveLocked(l, 1)
	require.EqualValues(t, 1, c.takeLocked(l, true))
	l.burnLocked(2)
	c.giveLocked(l, 1)
	c.giveLocked(l, 2)
	require.EqualValues(t, 3, c.takeLocked(l, true), "nor a lower one")
}

func TestAKeyIsOursInWhateverClass(t *testing.T) {
	l := leased(t, 1)
	l.names.top = 7
	id := "1010"
	for leaf, n := range map[string]uint64{
		id + "-7": 7, "read-" + id + "-7": 7, "of-3-" + id + "-7": 7, "of-3-w2-" + id + "-7": 7,
		id + "-8": 0, id + "-07": 0, "read-" + id: 0, "read-1011-7": 0, "wread-" + id + "-7": 0, id: 0, "": 0,
	} {
		require.Equal(t, n, l.numberLocked("some/name/"+leaf), "%q", leaf)
	}
}
