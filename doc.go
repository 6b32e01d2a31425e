// Package etcdlock has distributed locks and leader election on etcd: [Mutex], [RWMutex], [Semaphore], several names at once
// ([LockAll]) and [Election], on one queue.
//
// # What can go wrong
//
// A lock service can tell a process that it holds a lock. It cannot stop the process from acting after the hold
// has ended. Between asking "do I still hold it?" and the effect of the next write, the process can be stopped for longer than
// its lease lives: by swapping, SIGSTOP, or a suspended virtual machine. When it goes on, another may hold the lock. No lock
// service can prevent that. What this package does about it:
//
//   - A hold is a context. [Mutex.Context] and [Election.Context] end, with the cause [ErrLost], before etcd's rules let
//     it give the key to anybody else. Err reads the clock, so a process that was stopped learns of the end at its
//     first call after it wakes. Contexts derived from it learn by a timer, which
//     may run a little later: before you write, ask the one that the hold gave you.
//   - Every hold has a fencing token, [Mutex.Token], greater than that of every earlier hold that excludes it. Send
//     it along with each write, and let the store refuse a token below the greatest that it has seen: then a late
//     write is harmless. Where several hold at once, see [RWMutex] and [Hold.Slot].
//   - For writes to etcd itself, [Mutex.IsOwner] is a guard: a transaction with it commits only while the hold
//     lasts.
//
// A hold that was lost is lost for good: it is never taken up again silently. Unlock then returns ErrLost, which
// means that the work was not protected to its end.
//
// # How long a hold can be relied on
//
// A hold hangs on its Session's lease, and the lease is relied on until
//
//	S + min(TTL asked, TTL granted) - TTL/20 - margin
//
// by the local monotonic clock. A renewal is a linearizable read and a keepalive. S is when the earlier of the two was
// sent, for the last renewal that etcd acknowledged. It is never the moment at which an answer arrived, so a slow network
// shortens a hold and cannot stretch it. The TTL/20 covers a local clock that runs slower than etcd's, and a busy
// scheduler. The margin is that of [WithMargin], 0 by default. Renewals are due every third of the smaller TTL. A
// holder that cannot reach etcd gives up at the bound.
//
// On Linux the clock counts the time that the machine was suspended. Elsewhere a machine that slept may believe in a
// hold for as long as it slept, and the token is what is left.
//
// etcd can also remove a lease that was renewed all along: by an operator's hand, by a restore, or when an old etcd
// leader wakes from a long stall. The hold then ends as soon as the Session notices, while etcd can be reached: within
// TTL/20 and a round trip for a lost lease (mostly at once), within a third of the TTL and a round trip for a single
// removed key. In between only the token protects. Where somebody deletes a waiter's ticket together with the one before
// it, Lock may return nil and the hold end a moment later.
//
// # Use
//
// One [Session] per process is enough, for any number of locks and goroutines:
//
//	s, err := etcdlock.NewSession(ctx, client)
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	m := etcdlock.NewMutex(s, "/cron/lock/job9")
//	err = m.Do(ctx, func(ctx context.Context) error {
//		return work(ctx, m.Token()) // ctx ends with the hold
//	})
//
// [Mutex.Do] locks, runs, waits for the work to end and only then releases; [Election.Run] does the same for a
// service that should have one leader, and campaigns again after a loss. Lock, TryLock, Unlock, Campaign and Resign
// are the same by hand. [Session.Close] ends every hold; [Session.Shutdown] waits until they have been released.
//
// # What an error means
//
// A Lock, TryLock or Campaign that returned an error does not hold and leaves nothing behind: what could not be
// cleaned up at once is cleaned up in the background, and at worst by the lease's end. An Unlock or Resign that returned
// an error does not hold either: [ErrLost] says that the hold had ended before, [ErrUnconfirmed] that etcd has not
// confirmed the deletion yet, which goes on. Every call that blocks returns when its context ends; Do and Run wait for
// their function first, and then a second at most. Compare errors with errors.Is; a *[LockedError] tells who holds.
//
// # In etcd
//
// A contender for "name" is a key "name/<lease in hex>-<n>" that hangs on its Session's lease. The key with the
// lowest create revision holds; the others wait in that order. Those that share their turn say so right after the name: a
// reader is "name/read-<lease in hex>-<n>", and readers hold together where nobody else is ahead of them; a permit of a
// semaphore of N is "name/of-<N>-<lease in hex>-<n>", with "w<W>-" before the lease if it weighs W, and its number from
// [Hold.Slot] is "name/of-<N>-slot/<number>". This is the layout of etcd's own concurrency package,
// so that the two, and etcdctl lock and elect, can queue for one name.
package etcdlock
