package etcdlockprom

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// world is the library on an etcd in memory, in fake time.
type world struct {
	t       *testing.T
	etcd    *memetcd.Server
	metrics *Metrics
}

func inBubble(t *testing.T, f func(w *world), opts ...Option) {
	t.Helper()
	before := lease.Suspended
	lease.Suspended = func() time.Duration { return 0 }
	defer func() { lease.Suspended = before }() // once every goroutine of the bubble has ended
	synctest.Test(t, func(t *testing.T) {
		w := &world{t, memetcd.New(memetcd.Config{}), New(opts...)}
		t.Cleanup(func() {
			w.etcd.Close()
			time.Sleep(time.Minute) // what is about to end does
		})
		f(w)
	})
}

func (w *world) session(opts ...etcdlock.Option) *etcdlock.Session {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	opts = append(opts, etcdlock.WithTTL(30*time.Second), etcdlock.WithHooks(w.metrics.Hooks()))
	s, err := etcdlock.NewSession(ctx, w.etcd.Client(ctx), opts...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		w.etcd.Judge(nil)
		_ = s.Close()
		cancel()
	})
	return s
}

func (w *world) away() {
	w.etcd.Judge(func(memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: true} })
}

// scraped checks what a scrape has under these names, once all is told.
func (w *world) scraped(want string, names ...string) {
	w.t.Helper()
	synctest.Wait()
	require.NoError(w.t, testutil.CollectAndCompare(w.metrics, strings.NewReader(want), names...))
}

func TestWhatCallsWaitedAndWhatCameOfIt(t *testing.T) {
	inBubble(t, func(w *world) {
		s, ctx := w.session(), context.Background()
		m := etcdlock.NewMutex(s, "a")
		require.NoError(t, m.Lock(ctx))
		require.ErrorIs(t, etcdlock.NewMutex(s, "a").TryLock(ctx), etcdlock.ErrLocked)
		late, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		require.Error(t, etcdlock.NewElection(s, "a").Campaign(late, "x"))
		w.scraped(`
			# HELP etcdlock_acquire_duration_seconds How long calls waited for a lock, by what came of it.
			# TYPE etcdlock_acquire_duration_seconds histogram
			`+waits("election", "canceled", false)+waits("mutex", "busy", true)+waits("mutex", "held", true),
			"etcdlock_acquire_duration_seconds")
	})
}

// waits is the histogram of one wait, of no time or of three seconds.
func waits(kind, outcome string, atOnce bool) (text string) {
	labels := `kind="` + kind + `",outcome="` + outcome + `"`
	for _, le := range []string{"0.001", "0.004", "0.016", "0.064", "0.256", "1.024", "4.096", "16.384", "65.536", "262.144", "+Inf"} {
		n := "1"
		if !atOnce && (strings.HasPrefix(le, "0.") || le == "1.024") {
			n = "0"
		}
		text += "etcdlock_acquire_duration_seconds_bucket{" + labels + `,le="` + le + `"} ` + n + "\n"
	}
	sum := "3"
	if atOnce {
		sum = "0"
	}
	return text + "etcdlock_acquire_duration_seconds_sum{" + labels + "} " + sum + "\n" +
		"etcdlock_acquire_duration_seconds_count{" + labels + "} 1\n"
}

func TestTheGaugesAreTheSessionsOwn(t *testing.T) {
	inBubble(t, func(w *world) {
		names := []string{"etcdlock_held", "etcdlock_waiting", "etcdlock_lease_remaining_seconds", "etcdlock_overrun_seconds", "etcdlock_unconfirmed"}
		expect := func(held, waiting, remaining, overrun, unconfirmed string) {
			t.Helper()
			text := `
			# HELP etcdlock_held Holds at the moment.
			# TYPE etcdlock_held gauge
			etcdlock_held ` + held + `
			# HELP etcdlock_overrun_seconds How long a function of Do or Run runs on after the end of its hold; of several, the longest; 0 if none does.
			# TYPE etcdlock_overrun_seconds gauge
			etcdlock_overrun_seconds ` + overrun + `
			# HELP etcdlock_waiting Calls that wait for a lock.
			# TYPE etcdlock_waiting gauge
			etcdlock_waiting ` + waiting + `
			# HELP etcdlock_unconfirmed Released tickets whose deletion etcd has not confirmed.
			# TYPE etcdlock_unconfirmed gauge
			etcdlock_unconfirmed ` + unconfirmed + "\n"
			if remaining != "" {
				text += `
			# HELP etcdlock_lease_remaining_seconds How long the lease can be relied on without another renewal; of several Sessions, the least.
			# TYPE etcdlock_lease_remaining_seconds gauge
			etcdlock_lease_remaining_seconds ` + remaining + "\n"
			}
			w.scraped(text, names...)
		}
		expect("0", "0", "", "0", "0")
		s, ctx := w.session(), context.Background()
		expect("0", "0", "28.5", "0", "0")
		time.Sleep(time.Second)
		other := w.session()
		expect("0", "0", "27.5", "0", "0")

		m := etcdlock.NewMutex(s, "a")
		require.NoError(t, m.Lock(ctx))
		require.NoError(t, etcdlock.NewMutex(other, "b").Lock(ctx))
		let, done := make(chan struct{}), make(chan error, 2)
		go func() {
			done <- etcdlock.NewMutex(s, "c").Do(ctx, func(context.Context) error { <-let; return nil })
		}()
		short, cancel := context.WithCancel(ctx)
		go func() { done <- etcdlock.NewMutex(s, "a").Lock(short) }()
		expect("3", "1", "27.5", "0", "0")
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		synctest.Wait()
		w.away()
		now, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		require.ErrorIs(t, m.Unlock(now), etcdlock.ErrUnconfirmed)
		expect("2", "0", "26.5", "0", "1")
		time.Sleep(36500 * time.Millisecond) // ten seconds after the end of the first Session's lease
		expect("0", "0", "0", "10", "0")
		close(let)
		require.ErrorIs(t, <-done, etcdlock.ErrLost)
		expect("0", "0", "0", "0", "0")
		w.etcd.Judge(nil)
		require.NoError(t, s.Close())
		require.NoError(t, other.Close())
		expect("0", "0", "", "0", "0")
		require.Empty(t, w.metrics.sessions.open)
	})
}

func TestASessionThatHasNoLeaseIsLeftOut(t *testing.T) {
	for what, without := range map[string]func(w *world){
		"without one from the beginning": func(w *world) { w.session(etcdlock.WithoutLease()) },
		"orphaned":                       func(w *world) { require.NoError(t, w.session().Orphan()) },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(w *world) {
				w.session()
				without(w)
				w.scraped(`
					# HELP etcdlock_lease_remaining_seconds How long the lease can be relied on without another renewal; of several Sessions, the least.
					# TYPE etcdlock_lease_remaining_seconds gauge
					etcdlock_lease_remaining_seconds 28.5
				`, "etcdlock_lease_remaining_seconds")
			})
		})
	}
}

// increase() does not see a counter that begins with 1.
func TestTheLossOfEachNameOfASetIsAnIncreaseFromZero(t *testing.T) {
	inBubble(t, func(w *world) {
		h, err := etcdlock.LockAll(context.Background(), w.session(), "x", "y")
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 2*3, testutil.CollectAndCount(w.metrics, "etcdlock_lost_total"), "a cause and a name each")
		w.etcd.Delete(h.Key())
		require.ErrorIs(t, h.Release(context.Background()), etcdlock.ErrLost)
		synctest.Wait()
		require.Equal(t, 2*3, testutil.CollectAndCount(w.metrics, "etcdlock_lost_total"))
	}, WithName(func(_, name string) string { return name }))
}

func TestALossIsCountedByItsCauseAndAnIncreaseFromZero(t *testing.T) {
	inBubble(t, func(w *world) {
		s, ctx := w.session(), context.Background()
		m := etcdlock.NewMutex(s, "a")
		expect := func(deadline, removed string) {
			t.Helper()
			w.scraped(`
			# HELP etcdlock_lost_total Holds that ended before they were given back.
			# TYPE etcdlock_lost_total counter
			etcdlock_lost_total{cause="deadline",kind="mutex"} `+deadline+`
			etcdlock_lost_total{cause="removed",kind="mutex"} `+removed+`
			etcdlock_lost_total{cause="revoked",kind="mutex"} 0
			`, "etcdlock_lost_total")
		}
		require.NoError(t, m.Lock(ctx))
		expect("0", "0")
		time.Sleep(5 * time.Second) // it is watched by then
		w.etcd.Delete(m.Key())
		expect("0", "1")
		require.ErrorIs(t, m.Unlock(ctx), etcdlock.ErrLost)
		require.NoError(t, m.Lock(ctx))
		time.Sleep(4 * time.Second)
		require.NoError(t, m.Unlock(ctx))
		require.NoError(t, m.Lock(ctx))
		w.away()
		<-m.Context().Done()
		expect("1", "1")
		require.Equal(t, 1, testutil.CollectAndCount(w.metrics, "etcdlock_hold_duration_seconds"))
		w.scraped(`
			# HELP etcdlock_lease_replacements_total Leases that took the place of a lost one.
			# TYPE etcdlock_lease_replacements_total counter
			etcdlock_lease_replacements_total 0
			`, "etcdlock_lease_replacements_total")
		w.etcd.Judge(nil)
		time.Sleep(time.Minute)
		w.scraped(`
			# HELP etcdlock_lease_replacements_total Leases that took the place of a lost one.
			# TYPE etcdlock_lease_replacements_total counter
			etcdlock_lease_replacements_total 1
			`, "etcdlock_lease_replacements_total")
	})
}

func TestAFunctionThatRunsOnIsCountedOnceAndRenewalsByTheirOutcome(t *testing.T) {
	inBubble(t, func(w *world) {
		s, ctx := w.session(), context.Background()
		time.Sleep(25 * time.Second)
		require.Equal(t, uint64(2), w.count("etcdlock_renewal_duration_seconds", renewed))
		require.Equal(t, uint64(0), w.count("etcdlock_renewal_duration_seconds", failed))
		let, done := make(chan struct{}), make(chan error)
		go func() {
			done <- etcdlock.NewMutex(s, "a").Do(ctx, func(context.Context) error { <-let; return nil })
		}()
		overruns := func(n string) {
			t.Helper()
			w.scraped(`
			# HELP etcdlock_overruns_total Functions of Do and Run that still ran when others could hold.
			# TYPE etcdlock_overruns_total counter
			etcdlock_overruns_total{kind="mutex"} `+n+`
			`, "etcdlock_overruns_total")
		}
		overruns("0")
		w.away()
		time.Sleep(time.Minute)
		overruns("1")
		require.NotZero(t, w.count("etcdlock_renewal_duration_seconds", failed))
		close(let)
		require.ErrorIs(t, <-done, etcdlock.ErrLost)
		overruns("1")
	})
}

func TestNamesAreLabelsOnlyIfAskedFor(t *testing.T) {
	label := func(kind, name string) string {
		if kind == "mutex" && strings.HasPrefix(name, "user/") {
			return "user"
		}
		return ""
	}
	inBubble(t, func(w *world) {
		s, ctx := w.session(), context.Background()
		for _, name := range []string{"user/1", "user/2", "other"} {
			require.NoError(t, etcdlock.NewMutex(s, name).Lock(ctx))
		}
		require.NoError(t, s.Close())
		w.scraped(`
			# HELP etcdlock_overruns_total Functions of Do and Run that still ran when others could hold.
			# TYPE etcdlock_overruns_total counter
			etcdlock_overruns_total{kind="mutex",name=""} 0
			etcdlock_overruns_total{kind="mutex",name="user"} 0
			`, "etcdlock_overruns_total")
		require.Equal(t, uint64(2), w.count("etcdlock_hold_duration_seconds", "user"))
		require.Equal(t, uint64(1), w.count("etcdlock_hold_duration_seconds", ""))
	}, WithName(label))
}

func TestTheMetricsAreNamedAsPrometheusWantsThem(t *testing.T) {
	inBubble(t, func(w *world) {
		s := w.session()
		m := etcdlock.NewMutex(s, "a")
		require.NoError(t, m.Lock(context.Background()))
		require.NoError(t, m.Unlock(context.Background()))
		synctest.Wait()
		problems, err := testutil.CollectAndLint(w.metrics)
		require.NoError(t, err)
		require.Empty(t, problems)
		reg := prometheus.NewPedanticRegistry() // what is collected is what was described
		require.NoError(t, reg.Register(w.metrics))
		families, err := reg.Gather()
		require.NoError(t, err)
		require.Len(t, families, 12)
	})
}

// count is the number of samples in the histogram with this label value.
func (w *world) count(name, value string) uint64 {
	w.t.Helper()
	synctest.Wait()
	reg := prometheus.NewPedanticRegistry()
	require.NoError(w.t, reg.Register(w.metrics))
	families, err := reg.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == value {
					return m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	w.t.Fatalf("no %s with %q", name, value)
	return 0
}
