package etcdlockprom

import (
	"errors"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcdlock/etcdlock"
)

// This file has what is asked of the Sessions at each scrape.

func desc(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, nil, nil) }

var (
	held        = desc("etcdlock_held", "Holds at the moment.")
	waiting     = desc("etcdlock_waiting", "Calls that wait for a lock.")
	unconfirmed = desc("etcdlock_unconfirmed", "Released tickets whose deletion etcd has not confirmed.")
	remaining   = desc("etcdlock_lease_remaining_seconds",
		"How long the lease can be relied on without another renewal; of several Sessions, the least.")
	overrun = desc("etcdlock_overrun_seconds",
		"How long a function of Do or Run runs on after the end of its hold; of several, the longest; 0 if none does.")
	dropped = desc("etcdlock_hook_events_dropped_total", "Events that these metrics have missed, because a hook blocked.")

	asked = []*prometheus.Desc{held, waiting, unconfirmed, remaining, overrun, dropped}
)

// collect asks each Session, and forgets those that are over.
func (ss *sessions) collect(ch chan<- prometheus.Metric) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var sum etcdlock.Stats
	missed := ss.dropped
	open := 0
	for s := range ss.open {
		st := s.Stats()
		missed += st.EventsDropped
		sum.Held += st.Held
		sum.Waiting += st.Waiting
		sum.Overrun.For = max(sum.Overrun.For, st.Overrun.For)
		switch {
		case !over(s):
			sum.Unconfirmed += st.Unconfirmed
			if open++; open == 1 || st.LeaseLeft < sum.LeaseLeft {
				sum.LeaseLeft = st.LeaseLeft
			}
		case st.Held+st.Waiting+st.Overruns == 0:
			delete(ss.open, s)
			ss.dropped += st.EventsDropped
		}
	}
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(held, float64(sum.Held))
	gauge(waiting, float64(sum.Waiting))
	gauge(unconfirmed, float64(sum.Unconfirmed))
	gauge(overrun, sum.Overrun.For.Seconds())
	if open > 0 {
		gauge(remaining, sum.LeaseLeft.Seconds())
	}
	ch <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(missed))
}

// over reports whether a Session has no lease, and will have none: it has come to its end, or never had one.
func over(s *etcdlock.Session) bool {
	err := s.Check()
	return slices.ContainsFunc([]error{etcdlock.ErrClosed, etcdlock.ErrClientClosed, etcdlock.ErrNoLease, etcdlock.ErrLeaseLost},
		func(end error) bool { return errors.Is(err, end) })
}
