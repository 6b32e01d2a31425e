package etcdlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// A ticket that a Session has put or claimed without an answer, and given up, may be there all the same, as another Session's. Who
// waits for it in the same Session must not take its own clean-up, which does not meet it, for the end of that ticket.
func TestTimeATicketWithoutAnAnswerIsWaitedForAsAnothers(t *testing.T) {
	for what, given := range map[string]func(ctx context.Context, t *testing.T, e *etcd, a *Session) (key string){
		"its claim never arrives": func(ctx context.Context, t *testing.T, e *etcd, a *Session) string {
			t.Helper()
			old, err := NewSession(t.Context(), e.client(t), WithTTL(time.Hour))
			require.NoError(t, err)
			left := lockedAs(t, old, "x")
			key, token := left.Key(), left.Token()
			require.NoError(t, old.Orphan())
			e.only("write", fault{lost: true})
			go func() { _ = NewMutex(a, "x").Resume(ctx, key, token) }()
			time.Sleep(10 * time.Millisecond)
			return key
		},
		"the answer to its put is lost": func(ctx context.Context, t *testing.T, e *etcd, a *Session) string {
			t.Helper()
			e.Judge(func(r memetcd.Request) memetcd.Verdict { return memetcd.Verdict{AnswerLost: puts(r)} })
			go func() { _ = NewMutex(a, "x").Lock(ctx) }()
			time.Sleep(10 * time.Millisecond)
			e.Judge(e.judge)
			return string(e.Keys("x/")[0].Key)
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				a, b := e.session(t, WithTTL(time.Minute)), e.session(t, WithTTL(time.Minute))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				key := given(ctx, t, e, a)
				e.bends(nil)
				second := NewMutex(a, "x")
				behindIt(t, second.Lock)
				has := NewMutex(b, "x")
				if what == "the answer to its put is lost" {
					require.NoError(t, has.Resume(t.Context(), key, e.Key(key).ModRevision))
				}
				e.Put("something/else", "", 0)
				cancel()
				time.Sleep(10 * time.Second)
				require.Zero(t, second.Token(), "it does not hold while the other one is there")
				require.Len(t, e.Keys("x/"), 2)
			})
		})
	}
}

// What cleans up after a put without an answer arrives when another Session has taken the ticket up, on the same lease.
func TestTimeACleanUpDeletesNothingThatWasTakenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		a := e.session(t, WithTTL(time.Minute))
		b := e.session(t, WithLease(a.Lease()))
		e.Judge(func(r memetcd.Request) memetcd.Verdict {
			switch {
			case r.Client != 1 || r.Kind != memetcd.Txn || !r.Write:
				return e.judge(r)
			case puts(r):
				return memetcd.Verdict{AnswerLost: true}
			}
			return memetcd.Verdict{Delay: 2 * time.Second}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, NewMutex(a, "x").Lock(ctx), context.DeadlineExceeded)
		has := NewMutex(b, "x")
		left, err := has.Holder(t.Context())
		require.NoError(t, err)
		require.NoError(t, has.Resume(t.Context(), left.Key, left.Modified))
		time.Sleep(2 * time.Minute)
		require.NoError(t, has.Verify(t.Context()))
		e.Judge(e.judge)
	})
}
