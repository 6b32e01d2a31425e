package etcdlock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// Whose turn it is, among readers and writers of several Sessions.

// rws returns an RWMutex of one name in each of n Sessions.
func rws(open func(time.Duration) *Session, n int) (all []*RWMutex) {
	for range n {
		all = append(all, NewRWMutex(open(3*time.Second), "a"))
	}
	return all
}

// settle lets everything happen that is going to: no test of this file waits longer for anything.
func settle() { time.Sleep(time.Second) }

// inTheWay asserts that a call was refused because of key.
func inTheWay(t *testing.T, err error, key, what string) {
	t.Helper()
	var by *LockedError
	if assert.ErrorAs(t, err, &by, what) {
		assert.Equal(t, key, by.Key, what)
	}
}

func TestTimeAReaderDoesNotPassAWaitingWriter(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		all := rws(open, 3)
		r, err := all[0].RLock(t.Context())
		require.NoError(t, err)
		wrote := make(chan error, 1)
		go func() { wrote <- all[1].Lock(t.Context()) }()
		settle()
		require.Len(t, etcd.Keys("a/"), 2)
		writer := string(etcd.Keys("a/")[0].Key) // by name: before "read"
		for i, m := range all {
			what := fmt.Sprint("Session ", i)
			for range 2 {
				_, err := m.TryRLock(t.Context())
				inTheWay(t, err, writer, what)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			_, err := m.RLock(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, what)
			if i != 1 { // a Session knows its own waiting writer, but not who holds
				inTheWay(t, err, writer, what)
			}
		}
		require.Empty(t, wrote)
		require.NoError(t, r.Release(t.Context()))
		require.NoError(t, <-wrote)
		require.NoError(t, all[1].Unlock(t.Context()))
		r, err = all[2].TryRLock(t.Context())
		require.NoError(t, err)
		require.NoError(t, r.Release(t.Context()))
	})
}

// writers are the ways to exclude readers: one waits by a count of those ahead, the other by near and far.
var writers = map[string]func(context.Context, *RWMutex) (release func(context.Context) error, err error){
	"Lock": func(ctx context.Context, m *RWMutex) (func(context.Context) error, error) {
		return m.Unlock, m.Lock(ctx)
	},
	"LockAll": func(ctx context.Context, m *RWMutex) (func(context.Context) error, error) {
		h, err := LockAll(ctx, m.s, m.Name(), "free") // together with another, no readers are counted
		return h.Release, err
	},
}

func TestTimeAWriterEntersAfterTheLastReader(t *testing.T) {
	for how, write := range writers {
		t.Run(how, func(t *testing.T) { entersAfterTheLastReader(t, write) })
	}
}

func entersAfterTheLastReader(t *testing.T, write func(context.Context, *RWMutex) (func(context.Context) error, error)) {
	t.Helper()
	for where, sessions := range map[string][]int{ // of three readers and the writer
		"in as many Sessions":    {0, 1, 2, 3},
		"all in one":             {0, 0, 0, 0},
		"beside one of them":     {0, 0, 1, 1},
		"beside the oldest":      {0, 1, 2, 0},
		"readers share, it does": {0, 0, 0, 1},
	} {
		for _, leave := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {2, 0, 1}, {1, 2, 0}, {0, 2, 1}} {
			t.Run(fmt.Sprint(where, " ", leave), func(t *testing.T) {
				found(t, func(t *testing.T, _ *memetcd.Server, open func(time.Duration) *Session) {
					all := rws(open, 4)
					var held []*Hold
					for _, s := range sessions[:3] {
						h, err := all[s].RLock(t.Context())
						require.NoError(t, err)
						held = append(held, h)
					}
					wrote := make(chan error, 1)
					var release func(context.Context) error
					go func() {
						var err error
						release, err = write(t.Context(), all[sessions[3]])
						wrote <- err
					}()
					for _, i := range leave {
						settle()
						require.Empty(t, wrote, "the writer enters beside a reader")
						require.NoError(t, held[i].Release(t.Context()))
					}
					settle()
					require.Len(t, wrote, 1)
					require.NoError(t, <-wrote)
					require.NoError(t, release(t.Context()))
				})
			})
		}
	}
}

func TestTimeTurnsGoInPhases(t *testing.T) {
	const turns = "RRWRRRWWR"
	for sessions := 1; sessions <= 3; sessions++ {
		found(t, func(t *testing.T, _ *memetcd.Server, open func(time.Duration) *Session) {
			all := rws(open, sessions)
			var mu sync.Mutex
			var log strings.Builder
			say := func(c byte) {
				mu.Lock()
				defer mu.Unlock()
				log.WriteByte(c)
			}
			var wg sync.WaitGroup
			first := NewMutex(all[0].s, "a")
			require.NoError(t, first.Lock(t.Context()))
			for i := range turns {
				m := all[i%sessions]
				do := m.RDo
				if turns[i] == 'W' {
					do = NewMutex(m.s, "a").Do
				}
				wg.Go(func() {
					assert.NoError(t, do(t.Context(), func(context.Context) error {
						say(turns[i])
						settle() // all that may hold beside this one do
						if turns[i] == 'R' {
							say('r')
						} else {
							say('w')
						}
						return nil
					}))
				})
				settle()
			}
			require.NoError(t, first.Unlock(t.Context()))
			wg.Wait()
			require.Equal(t, "RRrr"+"Ww"+"RRRrrr"+"Ww"+"Ww"+"Rr", log.String(), "%d Sessions", sessions)
		})
	}
}

// What is no reader by the beginning of its key excludes readers, whoever put it, and what is one does not.
func TestTimeTheClassOfAForeignKeyIsItsBeginning(t *testing.T) {
	for leaf, shares := range map[string]bool{
		"": false, "zz": false, "00": false, "\x00": false, "read": false, "read,": false, "read.": false, "readx-1-1": false,
		"of-3-1-1": false, "694d9ac6b7a4f31b": false,
		"read-": true, "read-zz": true, "read-\xff\xff": true, "read-694d-1": true,
	} {
		found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
			m, key := NewRWMutex(open(3*time.Second), "a"), "a/"+leaf
			for _, beside := range []string{"a0", "a-", "a/read-x/y", "a/b/zz"} {
				etcd.Put(beside, "of another name", 0)
			}
			etcd.Put(key, "foreign", 0)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			r1, err1 := m.TryRLock(t.Context())
			r2, err2 := m.RLock(ctx)
			_, terr := m.TryRLock(t.Context()) // by what the first has seen
			if shares {
				require.NoError(t, err1, leaf)
				require.NoError(t, err2, leaf)
				require.NoError(t, terr, leaf)
				require.NoError(t, r1.Release(t.Context()))
				require.NoError(t, r2.Release(t.Context()))
			} else {
				inTheWay(t, err1, key, leaf)
				inTheWay(t, err2, key, leaf)
				inTheWay(t, terr, key, leaf)
			}
			ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			require.ErrorIs(t, m.Lock(ctx), ErrLocked, "writers wait for all")
			got := make(chan error, 1)
			go func() { _, err := m.RLock(t.Context()); got <- err }()
			settle()
			etcd.Delete(key)
			require.NoError(t, <-got, leaf)
		})
	}
}

func TestTimeAStrayOfAReaderIsSwept(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		m, other := NewRWMutex(open(3*time.Second), "a"), NewRWMutex(open(3*time.Second), "a")
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Client == 1 && puts(q) {
				v.Delay = 5 * time.Second // it arrives after the deletion
			}
			return v
		})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := m.RLock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		etcd.Judge(nil)
		arrived := func() bool {
			return slices.ContainsFunc(etcd.History(), func(c memetcd.Commit) bool {
				return strings.HasPrefix(string(c.Events[0].Kv.Key), "a/read-")
			})
		}
		for !arrived() {
			time.Sleep(10 * time.Millisecond)
		}
		begin := time.Now()
		require.NoError(t, other.Lock(t.Context()))
		require.LessOrEqual(t, time.Since(begin), 2*time.Second)
	})
}

func TestTimeReadersOfALostLeaseEndTogether(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		m, other := NewRWMutex(s, "a"), NewRWMutex(open(3*time.Second), "a")
		var held []*Hold
		for range 3 {
			h, err := m.RLock(t.Context())
			require.NoError(t, err)
			held = append(held, h)
		}
		stays, err := other.RLock(t.Context())
		require.NoError(t, err)
		settle()
		etcd.Delete(held[0].Key())
		require.ErrorIs(t, held[0].Verify(t.Context()), ErrLost)
		require.NoError(t, held[1].Verify(t.Context()), "a removal ends one hold")
		etcd.Revoke(int64(s.Lease()))
		time.Sleep(151 * time.Millisecond) // a twentieth of the TTL, and what begins at its end
		for _, h := range held {
			require.ErrorIs(t, context.Cause(h.Context()), ErrLost)
			require.NotZero(t, h.Token())
			require.ErrorIs(t, h.Release(t.Context()), ErrLost)
			require.ErrorIs(t, h.Release(t.Context()), ErrNotHeld)
		}
		require.NoError(t, stays.Verify(t.Context()))
		again, err := m.RLock(t.Context())
		require.NoError(t, err)
		require.Greater(t, again.Token(), stays.Token())
	})
}

// A writer behind many readers does not look at the queue for each that leaves, whatever the order.
func TestTimeAWriterBehindManyReadersHasThemCounted(t *testing.T) {
	const readers = 100
	for order, leave := range map[string]func([]*Hold){
		"first come, first gone": func([]*Hold) {},
		"last come, first gone":  slices.Reverse[[]*Hold],
		"at random": func(h []*Hold) {
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(h), func(i, j int) { h[i], h[j] = h[j], h[i] })
		},
	} {
		for where, of := range map[string]int{"of another Session": 0, "of its own": 1} {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				sessions := []*Session{open(time.Hour), open(time.Hour)}
				var held []*Hold
				for range readers {
					h, err := NewRWMutex(sessions[of], "a").RLock(t.Context())
					require.NoError(t, err)
					held = append(held, h)
				}
				var asked atomic.Int64
				etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
					if q.Client == 2 && (q.Kind == memetcd.Range || q.Kind == memetcd.Txn) && !q.Write {
						asked.Add(1)
					}
					return memetcd.Verdict{}
				})
				wrote := make(chan error, 1)
				go func() { wrote <- NewMutex(sessions[1], "a").Lock(t.Context()) }()
				settle()
				leave(held)
				for _, h := range held {
					require.Empty(t, wrote, "%s, %s", order, where)
					require.NoError(t, h.Release(t.Context()))
					time.Sleep(time.Millisecond)
				}
				settle()
				require.Len(t, wrote, 1)
				require.NoError(t, <-wrote)
				require.LessOrEqual(t, asked.Load(), int64(4), "%s, %s: a look, a list, who holds, the check of the hold", order, where)
			})
		}
	}
}

// Two writers of a Session count at once, each those ahead of it.
func TestTimeASecondWriterBehindReadersIsLetInAtOnce(t *testing.T) {
	found(t, func(t *testing.T, _ *memetcd.Server, open func(time.Duration) *Session) {
		of, s := open(time.Minute), open(time.Minute)
		phase := func() (readers chan *Hold, writer chan *Mutex) {
			readers, writer = make(chan *Hold, 2), make(chan *Mutex, 1)
			for range 2 {
				go func() { h, _ := NewRWMutex(of, "a").RLock(t.Context()); readers <- h }()
			}
			settle()
			go func() { m := NewMutex(s, "a"); _ = m.Lock(t.Context()); writer <- m }()
			settle()
			return readers, writer
		}
		r1, w1 := phase()
		r2, w2 := phase()
		begin := time.Now()
		for range 2 {
			require.NoError(t, (<-r1).Release(t.Context()))
		}
		require.NoError(t, (<-w1).Unlock(t.Context()))
		for range 2 {
			require.NoError(t, (<-r2).Release(t.Context()))
		}
		require.NoError(t, (<-w2).Unlock(t.Context()))
		require.LessOrEqual(t, time.Since(begin), 100*time.Millisecond)
	})
}

// A put of a key that is there keeps its create revision, and the answer tells another.
func TestTimeATryOfAReaderThatIsSentTwiceIsOneTicket(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		m := NewRWMutex(open(time.Minute), "a")
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if puts(q) {
				return memetcd.Verdict{Again: []time.Duration{300 * time.Millisecond}, AnswerAgain: true}
			}
			return memetcd.Verdict{}
		})
		h, err := m.TryRLock(t.Context())
		require.NoError(t, err)
		require.Equal(t, etcd.Key(h.Key()).CreateRevision, h.Token())
		require.NoError(t, h.Verify(t.Context()))
		require.NoError(t, h.Release(t.Context()))
		require.Empty(t, etcd.Keys("a/"))
	})
}

// The deletion that others of the same Session wait for, and that cannot be handed to them in memory, is sent at once, also while
// an earlier one of the name is not answered.
func TestTimeAReleaseToReadersOfItsSessionDoesNotWaitForAnEarlierOne(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		m := NewRWMutex(open(15*time.Second), "a")
		require.NoError(t, m.Lock(t.Context()))
		next := make(chan error, 1)
		other := NewMutex(m.s, "a")
		go func() { next <- other.Lock(t.Context()) }()
		settle()
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Write} })
		go func() { _ = m.Unlock(t.Context()) }()
		require.NoError(t, <-next, "handed over in memory")
		time.Sleep(time.Millisecond) // the deletion has been sent
		require.Len(t, etcd.Keys("a/"), 2)
		etcd.Judge(nil)
		const readers = 3
		in := make(chan *Hold, readers)
		for range readers {
			go func() {
				h, err := m.RLock(t.Context())
				assert.NoError(t, err)
				in <- h
			}()
		}
		time.Sleep(100 * time.Millisecond) // the earlier deletion is not sent again before half a second has passed
		begin := time.Now()
		require.NoError(t, other.Unlock(t.Context()))
		for range readers {
			defer func(h *Hold) { require.NoError(t, h.Release(t.Context())) }(<-in)
		}
		require.Equal(t, begin, time.Now())
	})
}
