package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// Permits in fake time, on the etcd in memory.

const semTTL = 15 * time.Second

// asked is a call of Acquire under way.
type asked struct {
	name string
	got  chan *Hold
}

// ask has a Session of its own queue for w permits of n, and waits until it holds or waits.
func ask(t *testing.T, s *Session, n, w int) *asked {
	t.Helper()
	a := &asked{fmt.Sprintf("%d of %d", w, n), make(chan *Hold, 1)}
	go func() {
		h, err := NewSemaphore(s, "a", n).AcquireN(t.Context(), w)
		if err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
		a.got <- h
	}()
	synctest.Wait()
	return a
}

func (a *asked) holds() bool {
	synctest.Wait()
	return len(a.got) > 0
}

func (a *asked) release(t *testing.T) {
	t.Helper()
	require.NoError(t, (<-a.got).Release(t.Context()))
	synctest.Wait()
}

func TestTimePermitsComeBackInAnyOrder(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		var all []*asked
		for range 6 {
			all = append(all, ask(t, open(semTTL), 3, 1))
		}
		time.Sleep(time.Second) // whoever waits is watching
		for i, want := range []bool{true, true, true, false, false, false} {
			require.Equal(t, want, all[i].holds(), i)
		}
		begin := time.Now()
		all[2].release(t) // the oldest goes on
		require.True(t, all[3].holds())
		all[1].release(t)
		require.True(t, all[4].holds())
		require.False(t, all[5].holds())
		all[4].release(t)
		require.True(t, all[5].holds())
		require.Equal(t, begin, time.Now(), "nobody waited for a check")
	})
}

func TestTimeAWatchThatSaysNothingKeepsNoPermitIdle(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 2, 1) // keeps its permit for ever
		b, waiter := ask(t, open(semTTL), 2, 1), open(semTTL)
		c := ask(t, waiter, 2, 1)
		time.Sleep(time.Second)
		etcd.MuteStreams(3)
		b.release(t)
		require.False(t, c.holds())
		time.Sleep(semTTL/3 + time.Second)
		require.True(t, c.holds(), "the list of each third of the TTL tells")
		d := ask(t, waiter, 2, 1)
		time.Sleep(2 * semTTL / 3)
		begin := time.Now()
		c.release(t)
		require.True(t, d.holds())
		require.Equal(t, begin, time.Now())
	})
}

func TestTimeAWatchThatFellSilentIsLeft(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 3, 1)
		b, c := ask(t, open(semTTL), 3, 1), ask(t, open(semTTL), 3, 1)
		waiter := open(semTTL)
		// So that the Session opens no other watch when d holds, which would find the stream silent, too.
		require.NoError(t, NewMutex(waiter, "watched").Lock(t.Context()))
		d, e := ask(t, waiter, 3, 1), ask(t, waiter, 3, 1)
		time.Sleep(time.Second)
		etcd.MuteStreams(4)
		b.release(t)
		time.Sleep(semTTL/3 + 2*time.Second) // the list, and the grace of the watch
		require.True(t, d.holds())
		begin := time.Now()
		c.release(t)
		require.True(t, e.holds(), "the next watch is on another stream")
		require.Equal(t, begin, time.Now())
	})
}

func TestTimeAPermitIsFoundWhileNoWatchIsAnswered(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 2, 1)
		b, waiter := ask(t, open(semTTL), 2, 1), open(semTTL)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{AnswerLost: q.Kind == memetcd.Watch} })
		c := ask(t, waiter, 2, 1)
		time.Sleep(time.Minute)
		b.release(t)
		time.Sleep(semTTL/3 + time.Second)
		require.True(t, c.holds())
	})
}

func TestTimeWhatWasMissedBetweenTwoWatchesIsRead(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 3, 1)
		b, c := ask(t, open(semTTL), 3, 1), ask(t, open(semTTL), 3, 1)
		waiter := open(semTTL)
		d, e := ask(t, waiter, 3, 1), ask(t, waiter, 3, 1)
		time.Sleep(time.Second)
		etcd.MuteStreams(4)
		b.release(t)
		for !d.holds() {
			time.Sleep(10 * time.Millisecond) // until the list
		}
		c.release(t) // while the silent watch is given time to tell
		require.False(t, e.holds())
		time.Sleep(2 * time.Second) // the next watch is open; the next list is later
		require.True(t, e.holds())
	})
}

func TestTimeADeletionToldBeforeTheAnswerToAPutCounts(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		a := ask(t, open(semTTL), 3, 3)
		other, waiter := open(semTTL), open(semTTL)
		all := ask(t, waiter, 3, 3) // waits and watches all the time; its list is older than what follows
		time.Sleep(time.Second)
		ctx, quit := context.WithCancel(t.Context())
		defer quit()
		quits := make(chan error, 1)
		go func() {
			_, err := NewSemaphore(other, "a", 3).Acquire(ctx)
			quits <- err
		}()
		synctest.Wait()
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if q.Client == 3 && q.Kind == memetcd.Txn && puts(q) {
				return memetcd.Verdict{AnswerDelay: 300 * time.Millisecond}
			}
			return memetcd.Verdict{}
		})
		next := ask(t, waiter, 3, 3) // its answer is as of now, and on its way
		quit()
		require.ErrorIs(t, <-quits, context.Canceled)
		time.Sleep(400 * time.Millisecond)
		etcd.Judge(nil)
		a.release(t)
		require.True(t, all.holds())
		all.release(t)
		require.True(t, next.holds(), "who gave up is in the answer, and has gone")
	})
}

func TestTimeAPermitRemovedBeforeTheAnswerToItsPutQueuesAgainAtOnce(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		a, waiter := ask(t, open(semTTL), 2, 2), open(semTTL)
		b := ask(t, waiter, 2, 2) // waits and watches
		time.Sleep(time.Second)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if q.Client == 2 && q.Kind == memetcd.Txn && puts(q) {
				return memetcd.Verdict{AnswerDelay: 300 * time.Millisecond}
			}
			return memetcd.Verdict{}
		})
		c := ask(t, waiter, 2, 1)
		all := etcd.Keys("a/")
		require.Len(t, all, 3)
		slices.SortFunc(all, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) })
		etcd.Delete(string(all[2].Key)) // which the watch tells while nobody knows the ticket yet
		time.Sleep(290 * time.Millisecond)
		etcd.Judge(nil)
		time.Sleep(20 * time.Millisecond)
		require.Len(t, etcd.Keys("a/"), 3, "and not only at the next check")
		a.release(t)
		b.release(t)
		require.True(t, c.holds())
	})
}

func TestTimeADeletionOfAnEarlierGenerationDoesNotCount(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		etcd.Put("a/of-2-1f-1", "foreign", 0)
		etcd.Put("a/of-2-1f-2", "foreign", 0)
		waiter := open(semTTL)
		c := ask(t, waiter, 2, 1)
		time.Sleep(time.Second)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if q.Client == 1 && q.Kind == memetcd.Txn && puts(q) {
				return memetcd.Verdict{Delay: 100 * time.Millisecond, AnswerDelay: 300 * time.Millisecond}
			}
			return memetcd.Verdict{}
		})
		d := ask(t, waiter, 2, 1)
		etcd.Delete("a/of-2-1f-1") // c holds, and the key comes back, all before d is put
		etcd.Put("a/of-2-1f-1", "foreign", 0)
		time.Sleep(time.Second)
		require.True(t, c.holds())
		require.False(t, d.holds())
		etcd.Delete("a/of-2-1f-2")
		require.False(t, d.holds(), "behind c and the key that came back")
		etcd.Delete("a/of-2-1f-1")
		require.True(t, d.holds())
	})
}

func TestTimeADeletionOfAllPermitsGrantsNone(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		etcd.Put("a/of-1000-0", "foreign", 0) // an odd one: weighs all
		waiter := open(semTTL)
		c := ask(t, waiter, 1000, 1)
		time.Sleep(time.Second)
		rev := etcd.Rev()
		etcd.DeletePrefix("a/") // in one revision
		time.Sleep(10 * time.Millisecond)
		require.True(t, c.holds(), "it has queued again")
		h := <-c.got
		require.NoError(t, h.Context().Err())
		require.Greater(t, h.Token(), rev+1)
	})
}

func TestTimeAPhantomOfAPermitEndsAtOnce(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		require.NoError(t, NewMutex(open(semTTL), "a").Lock(t.Context()))
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Kind == memetcd.Watch && strings.HasPrefix(q.Keys[0], "a/of-") {
				v.Refuse = errors.New("not now") // so only the Mutex is watched
			}
			return v
		})
		b := ask(t, open(semTTL), 2, 1)
		time.Sleep(time.Second)
		etcd.DeletePrefix("a/") // both
		require.True(t, b.holds(), "as far as it was told")
		time.Sleep(100 * time.Millisecond)
		require.Error(t, (<-b.got).Context().Err())
	})
}

func TestTimeMembersThatDisagreeTakeTurns(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		var three, five []*asked
		for range 3 {
			three = append(three, ask(t, open(semTTL), 3, 1))
		}
		for range 5 {
			five = append(five, ask(t, open(semTTL), 5, 1))
		}
		late := ask(t, open(semTTL), 3, 1)
		time.Sleep(time.Second)
		for i, a := range three {
			for _, b := range five {
				require.False(t, b.holds())
			}
			require.True(t, a.holds(), i)
			a.release(t)
		}
		for i := range five {
			require.True(t, five[4-i].holds())
			require.False(t, late.holds())
			five[4-i].release(t)
		}
		require.True(t, late.holds())
	})
}

func TestTimeAMutexOfTheNameTakesAllPermits(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		a, b := ask(t, open(semTTL), 3, 1), ask(t, open(semTTL), 3, 1)
		m := NewMutex(open(semTTL), "a")
		locked := make(chan error, 1)
		go func() { locked <- m.Lock(t.Context()) }()
		synctest.Wait()
		c := ask(t, open(semTTL), 3, 1)
		time.Sleep(time.Second)
		require.False(t, c.holds(), "a permit is free, and the Mutex was there first")
		b.release(t)
		require.Empty(t, locked)
		a.release(t)
		require.NoError(t, <-locked)
		require.False(t, c.holds())
		require.NoError(t, m.Unlock(t.Context()))
		require.True(t, c.holds())
	})
}

func TestTimeThePermitOfACrashedHolderComesBack(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 2, 1)
		ask(t, open(7*time.Second), 2, 1) // ends between two lists of the waiter's
		c := ask(t, open(semTTL), 2, 1)
		time.Sleep(time.Second)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Client == 2} })
		begin := time.Now()
		for synctest.Wait(); len(etcd.Keys("a/")) > 2; synctest.Wait() {
			require.False(t, c.holds())
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, time.Since(begin), semTTL+time.Second)
		require.True(t, c.holds())
	})
}

func TestTimeWeightsGoInOrder(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		one, two := ask(t, open(semTTL), 3, 1), ask(t, open(semTTL), 3, 1)
		all, last := ask(t, open(semTTL), 3, 3), ask(t, open(semTTL), 3, 1)
		time.Sleep(time.Second)
		require.True(t, one.holds() && two.holds())
		require.False(t, all.holds() || last.holds(), "one is free, and who waits for three is first")
		one.release(t)
		require.False(t, all.holds() || last.holds())
		two.release(t)
		require.True(t, all.holds())
		require.False(t, last.holds())
		all.release(t)
		require.True(t, last.holds())
	})
}

func TestTimeKeysPutByHandCountAsTheyBegin(t *testing.T) {
	for key, blocked := range map[string]bool{
		"a/of-03-1f-1":   true,  // not the way 3 is written: of no semaphore, so it excludes everybody
		"a/of-3-zz":      true,  // a permit that cannot be read weighs all
		"a/of-3-w4-1f-1": true,  // so does one that is too heavy
		"a/of-3-w3-1f-1": true,  //
		"a/of-3-w2-1f-1": false, // one is left
		"a/of-30-1f-1":   true,
		"a/read-1f-1":    true,
		"a/zz":           true,
		"a/b/zz":         false,
	} {
		t.Run(key, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				etcd.Put(key, "by hand", 0)
				s := open(semTTL)
				h, err := NewSemaphore(s, "a", 3).TryAcquire(t.Context())
				if blocked {
					require.ErrorIs(t, err, ErrLocked)
				} else {
					require.NoError(t, err)
					require.NoError(t, h.Release(t.Context()))
				}
				c := ask(t, s, 3, 1)
				time.Sleep(time.Second)
				require.Equal(t, !blocked, c.holds())
				etcd.Delete(key)
				require.True(t, c.holds())
			})
		})
	}
}

func TestTimeSlotsAreUniqueAtEveryRevision(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		const n = 3
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
		defer cancel()
		done := make(chan struct{})
		greatest := make([]int64, n)
		i := 0
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			i++
			switch {
			case q.Kind != memetcd.Txn:
			case i%7 == 0:
				v.AnswerLost = true
			case i%11 == 0:
				v.Delay = time.Second
			}
			return v
		})
		for range 6 {
			s := open(semTTL)
			go func() {
				defer func() { done <- struct{}{} }()
				for range 10 {
					h, err := NewSemaphore(s, "a", n).Acquire(ctx)
					if !assert.NoError(t, err) {
						return
					}
					slot, token, err := h.Slot(ctx)
					if !assert.NoError(t, err) {
						return
					}
					again, same, err := h.Slot(ctx)
					if !assert.NoError(t, err) {
						return
					}
					assert.Equal(t, slot, again)
					assert.Equal(t, token, same)
					assert.Greater(t, token, greatest[slot])
					greatest[slot] = token
					time.Sleep(10 * time.Millisecond)
					_ = h.Release(ctx)
				}
			}()
		}
		for range 6 {
			<-done
		}
		etcd.Judge(nil)
		time.Sleep(semTTL)
		require.Empty(t, etcd.Keys("a/"))
		owners := map[string]string{} // by slot
		for _, c := range etcd.History() {
			for _, ev := range c.Events {
				key := string(ev.Kv.Key)
				switch {
				case !strings.HasPrefix(key, "a/of-3-slot/"):
				case ev.Type == clientv3.EventTypeDelete:
					delete(owners, key)
				default:
					require.Empty(t, owners[key], "%s is given to %s", key, ev.Kv.Value)
					for other, owner := range owners {
						require.NotEqual(t, owner, string(ev.Kv.Value), "has %s, too", other)
					}
					owners[key] = string(ev.Kv.Value)
				}
			}
		}
	})
}

func TestTimeTheSlotOfATicketThatWasRemovedGoes(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := NewSemaphore(open(semTTL), "a", 2).Acquire(t.Context())
		require.NoError(t, err)
		slot, token, err := h.Slot(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, slot)
		require.Greater(t, token, h.Token())
		etcd.Delete(h.Key())
		_, _, err = h.Slot(t.Context()) // its own is there still
		require.NoError(t, err)
		require.ErrorIs(t, h.Verify(t.Context()), ErrLost)
		synctest.Wait()
		require.Empty(t, etcd.Keys("a/"))
		_, _, err = h.Slot(t.Context())
		require.ErrorIs(t, err, ErrLost)
	})
}

func TestTimeATryForAPermitIsNotBusyForBeingOvertaken(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		other, s := NewSemaphore(open(semTTL), "a", 3), open(semTTL)
		_, err := other.Acquire(t.Context())
		require.NoError(t, err)
		tries := 0
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if q.Client == 2 && q.Kind == memetcd.Txn {
				tries++
				return memetcd.Verdict{Delay: 10 * time.Millisecond}
			}
			return memetcd.Verdict{}
		})
		end := make(chan struct{})
		go func() { // somebody comes and goes before each question arrives
			defer close(end)
			for range 10 {
				time.Sleep(time.Millisecond)
				h, err := other.Acquire(t.Context())
				assert.NoError(t, err)
				time.Sleep(7 * time.Millisecond)
				assert.NoError(t, h.Release(t.Context()))
			}
		}()
		h, err := NewSemaphore(s, "a", 3).TryAcquire(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, tries, 3)
		<-end
		require.NoError(t, h.Release(t.Context()))
	})
}

func TestTimeWhereAllNumbersAreTakenTheErrorIsThatOfALock(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		h, err := NewSemaphore(e.session(t), "a", 1).Acquire(t.Context())
		require.NoError(t, err)
		e.Put("a/of-1-slot/0", "of a ticket that is gone", 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = h.Slot(ctx)
		require.ErrorIs(t, err, ErrLocked)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		e.away()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = h.Slot(ctx)
		require.NotErrorIs(t, err, ErrLocked, "nobody knows")
		e.bends(nil)
	})
}

func TestTimeASlotThatIsAskedForTwiceIsOne(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(semTTL)
		h, err := NewSemaphore(s, "a", 3).Acquire(t.Context())
		require.NoError(t, err)
		other, err := NewSemaphore(open(semTTL), "a", 3).Acquire(t.Context())
		require.NoError(t, err)
		first := true
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Client == 1 && q.Kind == memetcd.Txn && first {
				first = false
				v.Delay = 10 * time.Second // and is sent again meanwhile
			}
			return v
		})
		done := make(chan int, 2)
		get := func() {
			slot, _, err := h.Slot(t.Context())
			assert.NoError(t, err)
			done <- slot
		}
		go get()
		synctest.Wait()
		slot, _, err := other.Slot(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, slot, "which the first one has asked for")
		go get()
		require.Equal(t, 1, <-done)
		require.Equal(t, 1, <-done)
		require.NoError(t, other.Release(t.Context())) // its number is free when the late request arrives
		time.Sleep(20 * time.Second)
		require.Len(t, etcd.Keys("a/of-3-slot/"), 1)
		require.NoError(t, h.Release(t.Context()))
		require.Empty(t, etcd.Keys("a/"))
	})
}

// A list that was read before a release is told, and answered after it, brings nobody back.
func TestTimeAListThatIsLateBringsNobodyBack(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		one, two := NewSemaphore(open(3*time.Second), "a", 2), NewSemaphore(open(3*time.Second), "a", 2)
		var held []*Hold
		for range 2 {
			h, err := one.Acquire(t.Context())
			require.NoError(t, err)
			held = append(held, h)
		}
		got := make(chan *Hold, 2)
		for range 2 {
			go func() {
				h, err := two.Acquire(t.Context())
				assert.NoError(t, err)
				got <- h
			}()
		}
		time.Sleep(100 * time.Millisecond)
		var listed atomic.Bool
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			r, ok := q.Body.(*pb.RangeRequest)
			if ok && q.Client == 2 && string(r.Key) == "a/of-2-" && !listed.Swap(true) {
				v.AnswerDelay = 300 * time.Millisecond
			}
			return v
		})
		for !listed.Load() {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, held[0].Release(t.Context()))
		first := <-got
		time.Sleep(400 * time.Millisecond)
		begin := time.Now()
		require.NoError(t, first.Release(t.Context()))
		<-got
		require.LessOrEqual(t, time.Since(begin), 100*time.Millisecond)
	})
}

// Where much happens, a list knows of more than the watch has told. The watch has its time to tell before it is left.
func TestTimeAListThatKnowsMoreGivesTheWatchItsTime(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ask(t, open(semTTL), 2, 1)
		b, waiter := ask(t, open(semTTL), 2, 1), open(semTTL)
		c, d := ask(t, waiter, 2, 1), ask(t, waiter, 2, 1)
		watches := 0
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Kind == memetcd.Watch && q.Keys[0] == "a/of-2-" {
				watches++
			}
			return v
		})
		etcd.DelayStreams(3, 300*time.Millisecond)
		time.Sleep(semTTL/3 - 100*time.Millisecond)
		b.release(t)
		require.False(t, c.holds())
		time.Sleep(150 * time.Millisecond)
		require.True(t, c.holds(), "the list tells, before the watch")
		time.Sleep(5 * time.Second)
		require.False(t, d.holds())
		require.Zero(t, watches)
		c.release(t)
		time.Sleep(time.Second)
		d.release(t)
	})
}

// A release deletes the number that its ticket has. One that it has asked for in vain is another's.
func TestTimeAReleaseLeavesTheNumbersOfOthers(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := NewSemaphore(open(semTTL), "a", 3).Acquire(t.Context())
		require.NoError(t, err)
		other, err := NewSemaphore(open(semTTL), "a", 3).Acquire(t.Context())
		require.NoError(t, err)
		first := true
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Client == 1 && q.Kind == memetcd.Txn && first {
				first = false
				v.Delay = 100 * time.Millisecond
			}
			return v
		})
		got := make(chan int, 1)
		go func() {
			slot, _, err := h.Slot(t.Context())
			assert.NoError(t, err)
			got <- slot
		}()
		synctest.Wait()
		slot, _, err := other.Slot(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, slot, "which the first one has asked for")
		require.Equal(t, 1, <-got)
		require.NoError(t, h.Release(t.Context()))
		require.Len(t, etcd.Keys("a/of-3-slot/"), 1)
		require.NotNil(t, etcd.Key("a/of-3-slot/0"))
		require.NoError(t, other.Release(t.Context()))
		require.Empty(t, etcd.Keys("a/"))
	})
}

// However many of a Session wait in a queue, they have one watch, and one list for each third of the TTL.
func TestTimeThoseOfASessionThatWaitAreCountedTogether(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ctx, cancel := context.WithCancel(t.Context())
		a, s := ask(t, open(semTTL), 2, 2), open(semTTL)
		var watches, lists atomic.Int64
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if len(q.Keys) > 0 && q.Keys[0] == "a/of-2-" {
				switch q.Kind {
				case memetcd.Watch:
					watches.Add(1)
				case memetcd.Range:
					lists.Add(1)
				}
			}
			return v
		})
		const waiting = 20
		ended := make(chan error, waiting)
		for range waiting {
			go func() {
				_, err := NewSemaphore(s, "a", 2).Acquire(ctx)
				ended <- err
			}()
		}
		time.Sleep(time.Minute)
		require.Equal(t, int64(1), watches.Load())
		require.Greater(t, lists.Load(), int64(5))
		require.LessOrEqual(t, lists.Load(), 1+3*int64(time.Minute/semTTL))
		cancel()
		for range waiting {
			require.ErrorIs(t, <-ended, context.Canceled)
		}
		a.release(t)
	})
}
