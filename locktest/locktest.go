// Package locktest lets a service test what it does with its locks: the real library on an etcd in memory, and faults that
// the test commands. There are no sockets, no server, and no dependency but etcd's client; and it works inside a
// testing/synctest bubble, where a lease of 15 s runs out in no time.
//
//	func TestTheWorkerStopsWhenItsLockIsLost(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			etcd := locktest.New(t)
//			worker := NewWorker(etcd.Session()) // the code under test
//			go worker.Run(t.Context())
//			synctest.Wait() // it holds the lock and works
//			etcd.Cut()      // nothing is answered any more
//			<-worker.Stopped
//		})
//	}
//
// What the etcd in memory does is what etcd does, as far as locks need it: revisions, transactions, leases, watches, with
// etcd's own client on top. The same table of behaviours runs on it and on the real server. It knows no permissions, no
// quota and no members that differ. What only a real cluster shows, such as how long an election of etcd's own takes, is
// not tested by it.
//
// Under the race detector run such tests on one processor (go test -race -cpu 1): Go up to 1.26 at least shares one state of
// the detector among all timers of a bubble, and the process crashes now and then (https://go.dev/issue/78156). The detector
// finds as much there.
//
// A program that imports this package does not see that its machine was suspended: the clock that the library holds its
// leases against is then Go's own, which a bubble replaces. So import it from tests alone.
package locktest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

func init() {
	lease.Suspended = func() time.Duration { return 0 } // the machine's own clock knows nothing of a bubble
}

// Etcd is an etcd in memory, for one test. All its methods are safe for concurrent use. Faults are for all clients.
type Etcd struct {
	tb     testing.TB
	server *memetcd.Server

	mu       sync.Mutex // guards what follows; a leaf
	cut      bool
	loses    int // answers to come that are lost
	delay    time.Duration
	occupied int // keys that Occupy has put
}

// New returns an etcd that ends with the test, which has to be of the same bubble if there is one.
func New(tb testing.TB) *Etcd {
	tb.Helper()
	e := &Etcd{tb: tb}
	e.server = memetcd.New(memetcd.Config{Judge: e.judge})
	tb.Cleanup(e.server.Close)
	return e
}

// judge is what happens to a request.
func (e *Etcd) judge(r memetcd.Request) memetcd.Verdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.cut:
		return memetcd.Verdict{Lost: true}
	case e.loses > 0 && r.Write:
		e.loses--
		return memetcd.Verdict{AnswerLost: true}
	}
	return memetcd.Verdict{AnswerDelay: e.delay}
}

// Client returns a new client, as another process would have one. It is closed with the test.
func (e *Etcd) Client() *clientv3.Client {
	e.tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client := e.server.Client(ctx)
	e.tb.Cleanup(func() {
		_ = client.Close()
		cancel()
	})
	return client
}

// Session returns a new Session with a client of its own: a process of the fleet. It is closed with the test, and all faults
// end before. It fails the test where NewSession fails.
func (e *Etcd) Session(opts ...etcdlock.Option) *etcdlock.Session {
	e.tb.Helper()
	s, err := etcdlock.NewSession(e.tb.Context(), e.Client(), opts...)
	if err != nil {
		e.tb.Fatalf("locktest: %v", err)
	}
	e.tb.Cleanup(func() {
		e.Heal()
		_ = s.Close()
	})
	return s
}

// Occupy queues for name as somebody else, whose identity others see: it holds if nobody else does. release takes its
// ticket away; called again it does nothing.
func (e *Etcd) Occupy(name, identity string) (release func()) {
	e.mu.Lock()
	e.occupied++
	key := fmt.Sprintf("%s/locktest-%d", name, e.occupied)
	e.mu.Unlock()
	e.server.Put(key, identity, 0)
	return func() { e.server.Delete(key) }
}

// Queue lists the queue of name in the order of turns, those who hold first.
func (e *Etcd) Queue(name string) []etcdlock.Contender {
	all, _ := e.queue(name)
	return all
}

// queue is Queue, and how many of it hold.
func (e *Etcd) queue(name string) (all []etcdlock.Contender, holders int) {
	var leaves []string
	for _, kv := range e.server.Keys(name + "/") {
		leaf := strings.TrimPrefix(string(kv.Key), name+"/")
		if strings.Contains(leaf, "/") {
			continue // of a name that nests in this one
		}
		c := queue.Contender{Key: string(kv.Key), Value: string(kv.Value), Rev: kv.CreateRevision, Mod: kv.ModRevision, Lease: clientv3.LeaseID(kv.Lease)}
		all = append(all, etcdlock.Contender{
			Identity: c.Value, Token: c.Rev, Modified: c.Mod, Lease: c.Lease, Key: c.Key, Class: c.Class(),
		})
	}
	slices.SortFunc(all, func(a, b etcdlock.Contender) int { return int(a.Token - b.Token) })
	for _, c := range all {
		leaves = append(leaves, strings.TrimPrefix(c.Key, name+"/"))
	}
	return all, queue.Holders(leaves)
}

// Lose removes the tickets of all who hold name, behind their backs: an operator's hand, or a store that was restored. It
// fails the test if nobody holds it.
func (e *Etcd) Lose(name string) {
	e.tb.Helper()
	all, holders := e.queue(name)
	if holders == 0 {
		e.tb.Fatalf("locktest: Lose(%q): nobody holds that name", name)
	}
	for _, c := range all[:holders] {
		e.server.Delete(c.Key)
	}
}

// ExpireLeases ends all leases there are, with the tickets on them: what an operator does by revoking them, or an etcd
// that heard no renewal.
func (e *Etcd) ExpireLeases() {
	for _, id := range e.server.Leases() {
		e.server.Expire(id)
	}
}

// Cut lets nothing through between the clients and etcd, until Heal: requests are not answered, and watches say nothing.
// Leases run out meanwhile, so a hold ends at its bound, and the ticket goes some time later. An answer that Delay holds back at
// that moment still arrives.
func (e *Etcd) Cut() {
	e.mu.Lock()
	e.cut = true
	e.mu.Unlock()
	e.server.MuteStreams(0)
}

// Heal ends what Cut, LoseNextAnswer and Delay have begun. Requests that were cut off do not arrive late.
func (e *Etcd) Heal() {
	e.mu.Lock()
	cut := e.cut
	e.cut, e.loses, e.delay = false, 0, 0
	e.mu.Unlock()
	if cut {
		e.server.BreakStreams(0) // connections that were dead for so long are opened anew
	}
}

// LoseNextAnswer has the next request that writes take effect, and its answer get lost.
func (e *Etcd) LoseNextAnswer() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loses++
}

// Delay has every answer take d from now on, until Heal; 0 ends it. Events of watches are as fast as ever.
func (e *Etcd) Delay(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.delay = d
}
