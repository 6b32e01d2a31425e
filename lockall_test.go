package etcdlock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// Several names at once, in fake time on the etcd in memory.

var six = []string{"a", "b", "c", "d", "e", "a/b"} // the last one nests in the first

// someOf returns some of the six, in some order.
func someOf(r *rand.Rand) []string {
	names := append([]string(nil), six...)
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:1+r.IntN(4)]
}

// contend has 8 goroutines of 3 Sessions take some of the six, many times over, and returns how many of their turns did not
// come within a minute. take holds the names until the function that it returns is called.
func contend(t *testing.T, open func(time.Duration) *Session, take func(context.Context, *Session, []string) (release func(), err error)) (stuck int) {
	t.Helper()
	sessions := []*Session{open(15 * time.Second), open(15 * time.Second), open(15 * time.Second)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	holders := map[string]int{}
	count := func(names []string, n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, name := range names {
			holders[name] += n
			assert.LessOrEqual(t, holders[name], 1, name)
		}
	}
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 60 {
				names := someOf(r)
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
				release, err := take(ctx, sessions[i%len(sessions)], names)
				cancel()
				if err != nil {
					mu.Lock()
					stuck++
					mu.Unlock()
					return
				}
				count(names, 1)
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
				count(names, -1)
				release()
			}
		})
	}
	wg.Wait()
	return stuck
}

// slowly makes every request take a little, which mixes up their order.
func slowly(etcd *memetcd.Server) {
	r := rand.New(rand.NewPCG(1, 1))
	etcd.Judge(func(memetcd.Request) memetcd.Verdict {
		return memetcd.Verdict{Delay: time.Duration(r.IntN(2000)) * time.Microsecond}
	})
}

func TestTimeLockAllNeverDeadlocks(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		slowly(etcd)
		require.Zero(t, contend(t, open, func(ctx context.Context, s *Session, names []string) (func(), error) {
			h, err := LockAll(ctx, s, names...)
			return func() { assert.NoError(t, h.Release(context.Background())) }, err
		}))
		require.Empty(t, etcd.Keys(""))
	})
	t.Run("where one lock after the other does", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			slowly(etcd)
			require.NotZero(t, contend(t, open, func(ctx context.Context, s *Session, names []string) (func(), error) {
				var held []*Mutex
				release := func() {
					for _, m := range held {
						assert.NoError(t, m.Unlock(context.Background()))
					}
				}
				for _, name := range names {
					m := NewMutex(s, name)
					if err := m.Lock(ctx); err != nil {
						release()
						return nil, err
					}
					held = append(held, m)
				}
				return release, nil
			}))
		})
	})
}

func TestTimeAHoldOfSeveralNamesHasOneToken(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		last := int64(0)
		for _, names := range [][]string{{"b", "a", "a"}, {"a"}, {"c", "b"}, {"a/b", "a", "c"}, {"c"}} {
			h, err := LockAll(t.Context(), s, names...)
			require.NoError(t, err)
			require.Greater(t, h.Token(), last)
			last = h.Token()
			kvs := etcd.Keys("")
			require.Len(t, kvs, len(h.Keys()))
			for i, kv := range kvs {
				require.Equal(t, h.Token(), kv.CreateRevision)
				require.Contains(t, h.Keys(), string(kv.Key), i)
			}
			require.Equal(t, h.Keys()[0], h.Key())
			require.NoError(t, h.Release(t.Context()))
			require.Empty(t, etcd.Keys(""))
			require.ErrorIs(t, h.Release(t.Context()), ErrNotHeld)
		}
	})
}

// lockAll starts a LockAll and returns what came of it.
func lockAll(ctx context.Context, s *Session, names ...string) <-chan error {
	got := make(chan error, 1)
	go func() {
		h, err := LockAll(ctx, s, names...)
		if err == nil {
			err = h.Verify(ctx)
		}
		if err == nil {
			err = h.Release(ctx)
		}
		got <- err
	}()
	time.Sleep(100 * time.Millisecond)
	return got
}

// busy says that a call has not ended.
func busy(t *testing.T, got <-chan error, msg string) {
	t.Helper()
	select {
	case err := <-got:
		require.Fail(t, msg, "it has ended: %v", err)
	default:
	}
}

func TestTimeALostAnswerToLockAllIsOneSetOfTickets(t *testing.T) {
	for what, lose := range map[string]func(memetcd.Request) memetcd.Verdict{
		"lost": func(memetcd.Request) memetcd.Verdict { return memetcd.Verdict{AnswerLost: true} },
		"sent twice": func(memetcd.Request) memetcd.Verdict {
			return memetcd.Verdict{Again: []time.Duration{time.Millisecond}, AnswerAgain: true}
		},
	} {
		for _, try := range []bool{false, true} {
			t.Run(fmt.Sprint(what, try), func(t *testing.T) {
				found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
					s := open(3 * time.Second)
					first := true
					etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
						if first && puts(q) {
							first, v = false, lose(q)
						}
						return v
					})
					take := LockAll
					if try {
						take = TryLockAll
					}
					rev := etcd.Rev()
					h, err := take(t.Context(), s, six...)
					if try && what == "lost" { // a try tells what it knows
						require.Error(t, err)
						time.Sleep(2 * time.Second)
						require.Empty(t, etcd.Keys(""))
						return
					}
					require.NoError(t, err)
					require.Len(t, etcd.Keys(""), 6)
					require.Equal(t, rev+1, etcd.Rev(), "what was put first is what it holds")
					require.Equal(t, rev+1, h.Token())
					require.NoError(t, h.Verify(t.Context()))
					require.NoError(t, h.Release(t.Context()))
					require.Empty(t, etcd.Keys(""))
				})
			})
		}
	}
}

func TestTimeKeysOfAnotherPutAreNotTakenForASet(t *testing.T) {
	for what, plant := range map[string]func(etcd *memetcd.Server, s *Session, key func(string) string){
		"one of them": func(etcd *memetcd.Server, s *Session, key func(string) string) {
			etcd.Put(key("b"), s.Identity(), int64(s.Lease()))
		},
		"each at a revision of its own": func(etcd *memetcd.Server, s *Session, key func(string) string) {
			etcd.Put(key("a"), s.Identity(), int64(s.Lease()))
			etcd.Put(key("b"), s.Identity(), int64(s.Lease()))
		},
	} {
		for _, try := range []bool{false, true} {
			t.Run(fmt.Sprint(what, try), func(t *testing.T) {
				found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
					s := open(3 * time.Second)
					plant(etcd, s, func(name string) string { return fmt.Sprintf("%s/%x-1", name, int64(s.Lease())) })
					take := LockAll
					if try {
						take = TryLockAll
					}
					h, err := take(t.Context(), s, "a", "b")
					require.NoError(t, err)
					require.Len(t, etcd.Keys(""), 2)
					for _, key := range h.Keys() {
						require.Equal(t, h.Token(), etcd.Key(key).CreateRevision)
						require.False(t, strings.HasSuffix(key, "-1"), "the name of a stray is not used again")
					}
				})
			})
		}
	}
}

func TestTimeATicketOfASetThatIsRemovedTakesTheOthersAlong(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, s, third := NewMutex(open(3*time.Second), "b"), open(3*time.Second), NewMutex(open(3*time.Second), "a")
		require.NoError(t, holder.Lock(t.Context()))
		got := lockAll(t.Context(), s, "a", "b", "c")
		keys := etcd.Keys("a/")
		require.Len(t, keys, 1)
		etcd.Delete(string(keys[0].Key)) // not the one that is waited for
		require.NoError(t, third.Lock(t.Context()))
		time.Sleep(1100 * time.Millisecond) // a third of the TTL, and a little
		history := etcd.History()
		require.Len(t, history[len(history)-1].Events, 3, "they have queued again, together")
		require.NoError(t, holder.Unlock(t.Context()))
		time.Sleep(time.Second)
		busy(t, got, "the third holds one of them")
		require.NoError(t, third.Unlock(t.Context()))
		require.NoError(t, <-got)
		require.Empty(t, etcd.Keys(""))
	})
}

// The ticket of a was first long ago, so that no watch is on it. Nothing stands between the turn of b and the hold: that the
// other is gone is found right afterwards.
func TestTimeASetAsksForAllItsTicketsRightAfterItsGrant(t *testing.T) {
	for what, next := range map[string]func(t *testing.T, holder *Mutex, waiter string){
		"after a deletion": func(t *testing.T, holder *Mutex, waiter string) {
			t.Helper()
			_, err := holder.s.client.Delete(t.Context(), waiter)
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond) // the set has seen it, and that the holder is alone
			require.NoError(t, holder.Unlock(t.Context()))
		},
		"after a look": func(t *testing.T, holder *Mutex, waiter string) { // both go at once
			t.Helper()
			_, err := holder.s.client.Txn(t.Context()).Then(clientv3.OpDelete(waiter), clientv3.OpDelete(holder.Key())).Commit()
			require.NoError(t, err)
		},
	} {
		t.Run(what, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				holder, s, third := NewMutex(open(15*time.Second), "b"), open(15*time.Second), NewMutex(open(15*time.Second), "a")
				require.NoError(t, holder.Lock(t.Context()))
				etcd.Put("b/waiter", "", 0)
				got := make(chan *Hold, 1)
				go func() {
					h, err := LockAll(t.Context(), s, "a", "b")
					assert.NoError(t, err)
					got <- h
				}()
				time.Sleep(100 * time.Millisecond)
				etcd.Delete(string(etcd.Keys("a/")[0].Key))
				require.NoError(t, third.Lock(t.Context()))
				next(t, holder, "b/waiter")
				h := <-got
				time.Sleep(queue.CheckAfter)
				synctest.Wait()
				require.ErrorIs(t, context.Cause(h.Context()), ErrLost)
				require.ErrorIs(t, h.Release(t.Context()), ErrLost)
				require.NoError(t, third.Unlock(t.Context()))
				require.Empty(t, etcd.Keys(""))
			})
		})
	}
}

// Released before the check is due, the deletion tells.
func TestTimeAShortHoldOfASetTellsARemovalAtItsRelease(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, s := NewMutex(open(15*time.Second), "b"), open(15*time.Second)
		require.NoError(t, holder.Lock(t.Context()))
		got := make(chan error, 1)
		go func() {
			h, err := LockAll(t.Context(), s, "a", "b")
			if err == nil {
				err = h.Release(t.Context())
			}
			got <- err
		}()
		time.Sleep(100 * time.Millisecond)
		etcd.Delete(string(etcd.Keys("a/")[0].Key))
		require.NoError(t, holder.Unlock(t.Context()))
		require.ErrorIs(t, <-got, ErrLost)
		require.Empty(t, etcd.Keys(""))
	})
}

func TestTimeAHoldOfSeveralNamesEndsWithTheFirstLoss(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		h, err := LockAll(t.Context(), s, "a", "b", "c")
		require.NoError(t, err)
		guard := h.IsOwner()
		require.Len(t, guard, 3)
		guarded := func() bool {
			resp, err := s.client.Txn(t.Context()).If(guard...).Then(clientv3.OpPut("done", "")).Commit()
			require.NoError(t, err)
			return resp.Succeeded
		}
		require.True(t, guarded())
		etcd.Delete(h.Keys()[2])
		require.False(t, guarded())
		time.Sleep(1100 * time.Millisecond) // a third of the TTL, and a little
		require.ErrorIs(t, context.Cause(h.Context()), ErrLost)
		require.ErrorIs(t, h.Verify(t.Context()), ErrLost)
		require.Len(t, h.IsOwner(), 1, "a comparison that is never true")
		require.Len(t, etcd.Keys("a/"), 1, "the work may go on")
		require.ErrorIs(t, h.Release(t.Context()), ErrLost)
		time.Sleep(time.Millisecond)
		require.Len(t, etcd.Keys(""), 1, "the guarded write is all that is left")
	})
}

func TestTimeVerifyFindsAnyLossOfASet(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := LockAll(t.Context(), open(time.Hour), "a", "b", "c")
		require.NoError(t, err)
		require.NoError(t, h.Verify(t.Context()))
		etcd.Delete(h.Keys()[1])
		require.ErrorIs(t, h.Verify(t.Context()), ErrLost)
		require.ErrorIs(t, context.Cause(h.Context()), ErrLost)
	})
}

func TestTimeARemovalShowsAtTheReleaseOfASet(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := LockAll(t.Context(), open(time.Hour), "a", "b", "c")
		require.NoError(t, err)
		etcd.Delete(h.Keys()[1])
		require.ErrorIs(t, h.Release(t.Context()), ErrLost)
		require.Empty(t, etcd.Keys(""))
	})
}

func TestTimeALockAllThatGivesUpLeavesNothing(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, s := NewMutex(open(3*time.Second), "e"), open(3*time.Second)
		require.NoError(t, holder.Lock(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		rev := etcd.Rev()
		_, err := LockAll(ctx, s, six...)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, "e", locked.Name)
		require.Equal(t, holder.Token(), locked.Token)
		time.Sleep(time.Millisecond)
		require.Len(t, etcd.Keys(""), 1)
		require.Equal(t, rev+2, etcd.Rev(), "put in one Txn, deleted in one")
	})
	t.Run("not even what arrives late", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			s := open(3 * time.Second)
			etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
				if puts(q) {
					v.Delay = 1500 * time.Millisecond
				}
				return v
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := LockAll(ctx, s, six...)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Empty(t, etcd.Keys(""))
			time.Sleep(550 * time.Millisecond)
			require.Len(t, etcd.Keys(""), 6, "it has arrived")
			time.Sleep(2 * time.Second)
			require.Empty(t, etcd.Keys(""))
		})
	})
	t.Run("nor one that etcd refuses", func(t *testing.T) {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			s := open(3 * time.Second)
			etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
				if puts(q) {
					v.Refuse = errDenied
				}
				return v
			})
			_, err := LockAll(t.Context(), s, six...)
			require.ErrorIs(t, err, errDenied)
			etcd.Judge(nil)
			require.Empty(t, etcd.Keys(""))
			kept, _ := s.tickets.Drop(s.leases.current())
			require.Empty(t, kept, "in memory")
		})
	})
}

func TestTimeAReleaseOfASetWhoseAnswerIsLostGoesOn(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := LockAll(t.Context(), open(3*time.Second), six...)
		require.NoError(t, err)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Write} })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, h.Release(ctx), ErrUnconfirmed)
		require.Len(t, etcd.Keys(""), 6)
		etcd.Judge(nil)
		require.NoError(t, h.Release(t.Context()), "asked again, it tells how that went")
		require.Empty(t, etcd.Keys(""))
	})
}

func TestTimeANameThatMayNotBeTouchedKeepsNoOtherOfItsSet(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := LockAll(t.Context(), open(time.Hour), "a", "b", "c")
		require.NoError(t, err)
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Write && strings.Contains(fmt.Sprint(q.Body), h.Keys()[1]) {
				v.Refuse = errDenied
			}
			return v
		})
		require.ErrorIs(t, h.Release(t.Context()), errDenied)
		time.Sleep(time.Second)
		require.Len(t, etcd.Keys(""), 1)
		etcd.Judge(nil)
		time.Sleep(2 * time.Second)
		require.Empty(t, etcd.Keys(""), "permissions come back")
	})
}

func TestTimeASetAndItsOwnSession(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s, other := open(3*time.Second), NewMutex(open(3*time.Second), "a")
		require.NoError(t, other.Lock(t.Context()))
		m := NewMutex(s, "b")
		require.NoError(t, m.Lock(t.Context()))
		got, behind := lockAll(t.Context(), s, "a", "b"), lockAll(t.Context(), s, "b", "c")
		next := make(chan error, 1)
		go func() { next <- m.Lock(t.Context()) }()
		time.Sleep(100 * time.Millisecond)
		busy(t, got, "a Mutex of the same Session holds")
		_, err := TryLockAll(t.Context(), s, "c", "b")
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, "b", locked.Name)
		require.Equal(t, m.Token(), locked.Token)
		require.NoError(t, m.Unlock(t.Context()))
		time.Sleep(100 * time.Millisecond)
		busy(t, got, "the other name is held")
		require.Zero(t, s.Stats().Held, "nor does it hold without saying so")
		require.NoError(t, other.Unlock(t.Context()))
		for _, c := range []<-chan error{got, behind, next} {
			require.NoError(t, soonest(c))
		}
		require.NoError(t, m.Verify(t.Context()))
		require.NoError(t, m.Unlock(t.Context()))
		require.Empty(t, etcd.Keys(""))
	})
}

func TestTimeASetTakesNoLingeringTicketUp(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, _ func(time.Duration) *Session) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx), WithLinger(time.Minute))
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		m := NewMutex(s, "b")
		require.NoError(t, m.Lock(ctx))
		time.Sleep(time.Second)
		require.NoError(t, m.Unlock(ctx))
		time.Sleep(time.Second)
		require.Len(t, etcd.Keys("b/"), 1, "it lingers")
		begin := time.Now()
		h, err := LockAll(ctx, s, "a", "b")
		require.NoError(t, err)
		require.Equal(t, begin, time.Now(), "it need not wait for its end")
		require.Equal(t, h.Token(), etcd.Keys("b/")[0].CreateRevision)
		require.NoError(t, h.Release(ctx))
		require.Empty(t, etcd.Keys("b/"))
	})
}

// What a set puts under a name that nests in another of it is in nobody's way there, and costs no second look.
func TestTimeASetOfNamesThatNestIsOneRequest(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s, asked := open(time.Hour), 0
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Kind == memetcd.Range || q.Kind == memetcd.Txn {
				asked++
			}
			return v
		})
		for _, take := range []lockAllFunc{LockAll, TryLockAll} {
			asked = 0
			h, err := take(t.Context(), s, "a", "a/b", "a/b/c", "a/d", "a/e")
			require.NoError(t, err)
			require.Equal(t, 1, asked)
			require.NoError(t, h.Release(t.Context()))
		}
	})
}

type lockAllFunc = func(context.Context, *Session, ...string) (*Hold, error)

func TestTimeTryLockAllTellsWhichNameIsBusy(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, s := NewMutex(open(3*time.Second), "b"), open(3*time.Second)
		require.NoError(t, holder.Lock(t.Context()))
		etcd.Put("a/below/it", "", 0) // of a name that nests in one of them
		rev := etcd.Rev()
		_, err := TryLockAll(t.Context(), s, "c", "b", "a")
		var locked *LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, LockedError{Name: "b", Holder: holder.s.Identity(), Token: holder.Token(), Key: holder.Key()}, *locked)
		require.Equal(t, rev, etcd.Rev(), "it writes nothing")
		require.NoError(t, holder.Unlock(t.Context()))
		h, err := TryLockAll(t.Context(), s, "c", "b", "a")
		require.NoError(t, err)
		require.NoError(t, h.Release(t.Context()))
		require.Len(t, etcd.Keys(""), 1)
		kept, _ := s.tickets.Drop(s.leases.current())
		require.Empty(t, kept, "in memory")
	})
}

func TestTimeLockAllWaitsAsLongAsTheLongestWait(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		const rtt = 10 * time.Millisecond
		other, s := open(15*time.Second), open(15*time.Second)
		var holders []*Mutex
		for _, name := range []string{"a", "b", "c", "d"} {
			m := NewMutex(other, name)
			require.NoError(t, m.Lock(t.Context()))
			holders = append(holders, m)
		}
		etcd.Judge(func(memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Delay: rtt / 2, AnswerDelay: rtt / 2} })
		got, at := make(chan error, 1), time.Time{}
		go func() {
			_, err := LockAll(t.Context(), s, "a", "b", "c", "d")
			at = time.Now()
			got <- err
		}()
		var last time.Time
		for _, i := range []int{2, 0, 3, 1} {
			time.Sleep(time.Second)
			busy(t, got, "not all are free")
			last = time.Now()
			require.NoError(t, holders[i].Unlock(t.Context()))
		}
		require.NoError(t, <-got)
		require.Equal(t, last.Add(rtt), at, "the last release, as for a Mutex")
	})
}

func TestTimeASetThatIsMoreThanEtcdTakesSaysSo(t *testing.T) {
	found(t, func(t *testing.T, _ *memetcd.Server, _ func(time.Duration) *Session) {
		etcd := memetcd.New(memetcd.Config{MaxTxnOps: 8})
		defer etcd.Close()
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx))
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		_, err = LockAll(ctx, s, six...)
		require.ErrorContains(t, err, "6 names take 12 operations in one Txn")
		_, err = TryLockAll(ctx, s, six...)
		require.ErrorContains(t, err, "6 names take 12 operations in one Txn")
		h, err := LockAll(ctx, s, six[:4]...)
		require.NoError(t, err)
		require.NoError(t, h.Release(ctx))
		require.Empty(t, etcd.Keys(""))
	})
}

func TestTimeLockAllRefusesWhatIsNoSetOfNames(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		many := make([]string, 64)
		for i := range many {
			many[i] = fmt.Sprint("n", i)
		}
		fn := func(context.Context) error { return nil }
		for want, names := range map[string][]string{
			"no names: LockAll takes 1 to 63":       nil,
			"name 2 of 2: etcdlock: invalid name":   {"a", ""},
			"64 different names: at most 63 fit in": many,
		} {
			_, err := LockAll(t.Context(), s, names...)
			require.ErrorContains(t, err, want)
			_, err = TryLockAll(t.Context(), s, names...)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, DoAll(t.Context(), s, names, fn), want)
		}
		var none context.Context
		_, err := LockAll(none, s, "a")
		require.ErrorContains(t, err, "nil context")
		_, err = LockAll(t.Context(), nil, "a")
		require.ErrorContains(t, err, "no Session")
		require.ErrorContains(t, DoAll(t.Context(), s, []string{"a"}, nil), "nil function")
		require.EqualValues(t, 1, etcd.Rev(), "nothing was asked")
		h, err := LockAll(t.Context(), s, append(many[:63:63], many[0])...)
		require.NoError(t, err, "a name that is given twice counts once")
		require.NoError(t, h.Release(t.Context()))
	})
}

func TestTimeDoAllReleasesAfterItsFunction(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		err := DoAll(t.Context(), s, []string{"b", "a"}, func(ctx context.Context) error {
			require.Len(t, etcd.Keys(""), 2)
			etcd.Delete(string(etcd.Keys("b/")[0].Key))
			<-ctx.Done()
			require.Len(t, etcd.Keys(""), 1)
			return assert.AnError
		})
		require.ErrorIs(t, err, assert.AnError)
		require.ErrorIs(t, err, ErrLost)
		require.Empty(t, etcd.Keys(""))
	})
}

// What etcd says to a deletion of several names may be for one of them.
func TestTimeARefusalForOneNameOfASetSaysNothingOfTheOthers(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(time.Hour)
		h, err := LockAll(t.Context(), s, "a", "b")
		require.NoError(t, err)
		key := h.Keys()[1]
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if v.AnswerDelay = 5 * time.Millisecond; !puts(q) {
				v.Delay = 5 * time.Millisecond // the try is faster than the deletions
			}
			for _, k := range q.Keys {
				if k == key && q.Write {
					v.Refuse = errDenied
				}
			}
			return v
		})
		require.ErrorIs(t, h.Release(t.Context()), ErrUnconfirmed)
		m := NewMutex(s, "a")
		require.NoError(t, m.TryLock(t.Context()))
		require.NoError(t, m.Unlock(t.Context()))
		require.ErrorIs(t, h.Release(t.Context()), errDenied)
		etcd.Judge(nil)
		time.Sleep(2 * time.Second)
		require.NoError(t, h.Release(t.Context()))
		require.Empty(t, etcd.Keys(""))
	})
}
