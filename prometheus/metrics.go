// Package etcdlockprom has Prometheus metrics for the Sessions of github.com/etcdlock/etcdlock:
//
//	metrics := etcdlockprom.New()
//	prometheus.MustRegister(metrics)
//	s, err := etcdlock.NewSession(ctx, client, etcdlock.WithHooks(metrics.Hooks()))
//
// One Metrics serves any number of Sessions. dashboard.json, beside this file, is a Grafana dashboard for them, and
// docs/watching.md of the library says which three of them to alert on.
//
//	etcdlock_acquire_duration_seconds{kind,outcome}    how long calls waited for a lock; outcome is held, busy, canceled, closed or failed
//	etcdlock_hold_duration_seconds{kind}               how long holds lasted
//	etcdlock_lost_total{kind,cause}                    holds that were lost; cause is deadline, revoked or removed
//	etcdlock_overruns_total{kind}                      functions of Do and Run that ran on when others could hold
//	etcdlock_renewal_duration_seconds{outcome}         renewals that etcd acknowledged (ok), attempts that failed (failed)
//	etcdlock_lease_replacements_total                  leases that took the place of a lost one
//	etcdlock_held                                      holds
//	etcdlock_waiting                                   calls that wait
//	etcdlock_unconfirmed                               releases that etcd has not confirmed
//	etcdlock_lease_remaining_seconds                   how long the lease can be relied on; of several Sessions, the least
//	etcdlock_overrun_seconds                           how long a function runs on after the end of its hold, at most; 0 if none does
//	etcdlock_hook_events_dropped_total                 what these metrics have missed, because another hook blocked
//
// The last six are asked of the Sessions at each scrape; a Session that is over is left out.
package etcdlockprom

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcdlock/etcdlock"
)

// Metrics is a prometheus.Collector for the Sessions that have its Hooks. It is safe for concurrent use.
type Metrics struct {
	name func(kind, name string) string // nil: no label for it

	acquire, hold, renewal *prometheus.HistogramVec
	lost, overruns         *prometheus.CounterVec
	replacements           prometheus.Counter
	sessions               sessions
}

var _ prometheus.Collector = (*Metrics)(nil)

// Option configures Metrics.
type Option func(*Metrics)

// WithName adds a label "name" to what is counted by kind, with what label makes of a lock's kind and name. Without it
// there is no such label: each of its values is a time series, or a dozen, for as long as the process lives. So map names
// that hold an identifier to one that does not, and what is of no interest to "".
func WithName(label func(kind, name string) string) Option {
	return func(m *Metrics) { m.name = label }
}

// New returns Metrics; register it.
func New(opts ...Option) *Metrics {
	m := &Metrics{}
	for _, opt := range opts {
		opt(m)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m.acquire = histogram("etcdlock_acquire_duration_seconds", "How long calls waited for a lock, by what came of it.",
		prometheus.ExponentialBuckets(0.001, 4, 10), m.labels("kind", "outcome")...)
	m.hold = histogram("etcdlock_hold_duration_seconds", "How long holds lasted.",
		prometheus.ExponentialBuckets(0.001, 8, 9), m.labels("kind")...)
	m.renewal = histogram("etcdlock_renewal_duration_seconds", "How long renewals of the lease took, and attempts that failed.",
		prometheus.ExponentialBuckets(0.001, 2, 14), "outcome")
	m.lost = counter("etcdlock_lost_total", "Holds that ended before they were given back.", m.labels("kind", "cause")...)
	m.overruns = counter("etcdlock_overruns_total",
		"Functions of Do and Run that still ran when others could hold.", m.labels("kind")...)
	m.replacements = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "etcdlock_lease_replacements_total", Help: "Leases that took the place of a lost one.",
	})
	for _, outcome := range []string{renewed, failed} {
		m.renewal.WithLabelValues(outcome) // so that the first failure shows as an increase
	}
	return m
}

// The outcomes of a renewal.
const renewed, failed = "ok", "failed"

func (m *Metrics) labels(names ...string) []string {
	if m.name != nil {
		names = append(names, "name")
	}
	return names
}

// of returns the values of labels for a lock.
func (m *Metrics) of(kind, name string, more ...string) []string {
	values := append([]string{kind}, more...)
	if m.name != nil {
		values = append(values, m.name(kind, name))
	}
	return values
}

// Hooks returns what makes a Session tell these metrics: etcdlock.WithHooks(m.Hooks()).
func (m *Metrics) Hooks() etcdlock.Hooks {
	return etcdlock.Hooks{
		Opened: m.sessions.add,
		WaitEnded: func(_ context.Context, w etcdlock.WaitEnd) {
			m.acquire.WithLabelValues(m.of(w.Kind, w.Name, string(w.Outcome))...).Observe(w.Waited.Seconds())
			for _, name := range w.Names { // that are held: so that the first loss of its kind shows as an increase
				for _, cause := range []etcdlock.LossCause{etcdlock.LostByDeadline, etcdlock.LostByRevoke, etcdlock.LostByRemoval} {
					m.lost.WithLabelValues(m.of(w.Kind, name, string(cause))...)
				}
				m.overruns.WithLabelValues(m.of(w.Kind, name)...)
			}
		},
		HoldEnded: func(h etcdlock.HoldEnd) {
			m.hold.WithLabelValues(m.of(h.Kind, h.Name)...).Observe(h.Held.Seconds())
			if h.Ending == etcdlock.EndingLost {
				m.lost.WithLabelValues(m.of(h.Kind, h.Name, string(h.Cause))...).Inc()
			}
		},
		Renewed: func(r etcdlock.Renewal) {
			outcome := renewed
			if r.Err != nil {
				outcome = failed
			}
			m.renewal.WithLabelValues(outcome).Observe(r.Took.Seconds())
		},
		LeaseReplaced: func(etcdlock.LeaseReplacement) { m.replacements.Inc() },
		Overrun: func(o etcdlock.Overrun) {
			if !o.Returned {
				m.overruns.WithLabelValues(m.of(o.Kind, o.Name)...).Inc()
			}
		},
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counted() {
		c.Describe(ch)
	}
	for _, d := range asked {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.counted() {
		c.Collect(ch)
	}
	m.sessions.collect(ch)
}

func (m *Metrics) counted() []prometheus.Collector {
	return []prometheus.Collector{m.acquire, m.hold, m.renewal, m.lost, m.overruns, m.replacements}
}

// sessions are those that are not over.
type sessions struct {
	mu      sync.Mutex // guards what follows
	open    map[*etcdlock.Session]struct{}
	dropped uint64 // by those that are over
}

func (ss *sessions) add(s *etcdlock.Session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.open == nil {
		ss.open = make(map[*etcdlock.Session]struct{})
	}
	ss.open[s] = struct{}{}
}
