// Package concurrency has the API of etcd's package of this name, go.etcd.io/etcd/client/v3/concurrency v3.7.3, on top of
// etcdlock. A program gets what etcdlock promises by one changed line:
//
//	import "github.com/etcdlock/etcdlock/concurrency"
//
// Processes with either package queue for the same names and exclude each other, so a fleet can move one process at a time,
// and back. The errors are etcd's own values. Software transactional memory is etcd's, unchanged.
//
// The command tests/dropin of the repository runs etcd's own tests for sessions, mutexes and elections on this package: 26 of
// 28 pass. The two others, TestMutexSessionRelock and TestElectionSessionRecampaign, want two values of one session to hold
// the same lock together, and wait.
//
// # What is better
//
//   - Goroutines exclude each other, also those of one session: two Mutexes of one name never hold together.
//   - A session ends, and Done says so, before its lease can have run out in etcd: at the time of the last renewal's sending,
//     plus TTL, minus a twentieth of it; there, it may end after others have the lock.
//   - A Lock, TryLock or Campaign that returned an error leaves no key behind, also when its answer was lost: but for one that an
//     earlier session on the same lease has left, and that was to be taken up. The next call takes it up.
//   - A call returns when its context ends, also in a partition. Close returns within five seconds.
//   - A waiter survives compactions, broken connections and a member that is frozen, and queues again when its key is deleted.
//   - Holding "a/b" does not block "a". A TryLock that finds the lock busy writes no key.
//   - Unlock and Resign delete the caller's own key of that time, however late the request arrives.
//   - Observe mends what breaks its watch, and ends only with its context or the client.
//   - What happens in the background is told in the client's log, at Warn and Error.
//
// # What differs, call by call
//
//   - NewSession renews its lease before it returns, which is two requests more. It fails where etcd does not answer them
//     before its context ends.
//   - WithLease: of a lease that is gone it makes a session that is over, as there. What is already in a queue on a lease
//     that was given, by this package or by etcd's, is taken up by the next Lock, TryLock or Campaign for that queue; one
//     that waits keeps its place. Whoever held by it on another session of the same lease finds that it does not any more,
//     within a third of the TTL.
//   - WithContext: its end orphans the session, as there; keys that wait are deleted.
//   - Session.Done and Ctx: see above. A session that is over stays so, as there.
//   - Session.Orphan: what is held stays; what waits is deleted, and its Lock or Campaign returns ErrSessionExpired. Afterwards
//     Lock, TryLock, Campaign, Proclaim, Unlock and Resign renew the lease for as long as each lasts, since nothing is held
//     on the word of somebody else's renewals. Where nobody else renews it, it ends a TTL after the last of them.
//   - Session.Close of a lease that is gone returns nil, not an error.
//   - Mutex.Lock and TryLock on a value that holds: Lock waits, TryLock returns ErrLocked. There, both return nil. So does
//     Lock on a value whose hold was lost by the deletion of its key wait until Unlock has told.
//   - Lock after the end of the session: ErrSessionExpired, where etcd's returns the server's "lease not found".
//   - Mutex.Unlock returns etcdlock.ErrLost, where etcd's returns nil, if the hold had ended before. What was done under it
//     was not protected to its end.
//   - Mutex.Key is empty, and IsOwner never true, while nothing is held.
//   - The key is the prefix, "/", the lease in hex, and a number; there it has no number.
//   - A Mutex's key has the value host-pid; there it is empty.
//   - Mutex.Header, Election.Header: of a read made when the lock was had, which is one request more. Its revision is no
//     smaller than that of any holder before, of either package, so it can be used to fence as there.
//   - NewLocker: a loss is told by Unlock in the client's log, without a panic.
//   - Election.Campaign on a value that leads proclaims, as there; while the value is a candidate, it returns
//     etcdlock.ErrCampaigning. An empty value is shown as host-pid.
//   - Election.Resign returns etcdlock.ErrLost if the value had ceased to lead; nil if it never led, as there.
//   - ResumeElection: the name is taken from the key. There, the prefix lacks its slash, so that Observe and Campaign of a
//     resumed election are about other keys than those of NewElection. Proclaim and Resign take up the lead from whoever
//     holds it on another session, and that one is told. Taking up writes the value again: Version counts it.
//   - Election.Observe does not tell that the value which is there was written again.
//   - SessionOption and STMOption are types of this package: do not mix its options with those of etcd's.
//   - After the end of the client, calls return etcdlock.ErrClientClosed.
//
// A program that wants more, such as a context for each hold, a fencing token and the name of the holder, uses etcdlock itself.
package concurrency
