package etcdlock

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	defaultTTL = 15 * time.Second
	minTTL     = time.Second // etcd counts leases in whole seconds

	maxMarginPart = 4 // of the TTL: what WithMargin may take of it
)

// Option configures a Session. A bad option is an error of NewSession.
type Option func(*options) error

type options struct {
	ttl      time.Duration
	identity string
	log      *slog.Logger
	linger   time.Duration
	margin   time.Duration
	hooks    []Hooks
	lease    clientv3.LeaseID // NoLease for one of its own
	none     bool             // without a lease
}

func newOptions(opts []Option) (options, error) {
	o := options{log: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		if opt == nil {
			return o, errors.New("etcdlock: nil Option")
		}
		if err := opt(&o); err != nil {
			return o, err
		}
	}
	if o.lease != clientv3.NoLease && o.none {
		return o, errors.New("etcdlock: WithLease and WithoutLease: a Session has a lease or it has none")
	}
	if o.ttl == 0 && o.lease == clientv3.NoLease {
		o.ttl = defaultTTL
	}
	if o.ttl != 0 {
		if err := o.fits(o.ttl); err != nil {
			return o, err
		}
	}
	if o.identity == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "localhost" // the pid still tells the processes of one machine apart
		}
		o.identity = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	return o, nil
}

// fits reports whether the margin leaves enough of a TTL.
func (o options) fits(ttl time.Duration) error {
	if o.margin > ttl/maxMarginPart {
		return fmt.Errorf("etcdlock: margin of %v is more than a quarter of the TTL of %v: it takes time from every "+
			"renewal: pass WithMargin at most %v, or WithTTL a longer one", o.margin, ttl, ttl/maxMarginPart)
	}
	return nil
}

// WithTTL sets how long the Session's lease outlives its last renewal: after a crash the locks are free that much
// later, and a holder that cannot reach etcd gives up a little before. The default is 15 s, the least is 1 s; it is
// rounded up to whole seconds, which is what etcd counts in. etcd may grant more than was asked (short TTLs are
// raised to fit its election timeout); Session.TTL tells what was granted.
func WithTTL(ttl time.Duration) Option {
	return func(o *options) error {
		if ttl < minTTL {
			return fmt.Errorf("etcdlock: TTL %v is below 1s: WithTTL takes a time.Duration, such as 30*time.Second", ttl)
		}
		o.ttl = (ttl + time.Second - 1).Truncate(time.Second)
		if o.ttl < ttl { // the rounding overflowed
			o.ttl = ttl.Truncate(time.Second)
		}
		return nil
	}
}

// WithIdentity sets what others see as the holder: the value of the Session's tickets. The default is host-pid.
func WithIdentity(identity string) Option {
	return func(o *options) error {
		if identity == "" {
			return errors.New("etcdlock: empty identity: leave WithIdentity out to get host-pid")
		}
		o.identity = identity
		return nil
	}
}

// WithLogger sets where the Session tells what happens to it in the background. The default is silence. A log that blocks
// holds up no hold and no renewal: lines wait for it, and are dropped once there are many; Close waits for the last of them,
// a second at most. So a log may close its Session. By level:
//
//   - Error: what etcd refuses for good, so that it takes an operator to mend it: a renewal, the next lease, a check of
//     tickets, and what a Locker meets.
//   - Warn: a NewSession that waits for etcd; a lost lease, and a ticket that others removed, each with the holds that went
//     with it.
//   - Info: the next lease, and a client with a single endpoint.
//   - Debug: a single renewal that failed while later ones may not, and clean-up.
func WithLogger(log *slog.Logger) Option {
	return func(o *options) error {
		if log == nil {
			return errors.New("etcdlock: nil logger: leave WithLogger out for silence")
		}
		o.log = log
		return nil
	}
}

// WithLinger makes the Session keep a Mutex's lock for up to d after Unlock, so that its next Lock or TryLock of the
// same name costs nothing, and give it up at once when anybody else queues: as soon as its watch tells, and where that has
// fallen silent and etcd does not answer, within three quarters of the TTL. The default is 0: Unlock releases. It suits a
// process that takes the same lock over and over while others want it seldom.
//
// Two promises change with it, for as long as one tenure (from the first Lock to the release) lasts: the holds in it
// share one token, and the guard of IsOwner stays true between and after them. Until the tenure ends, others see the
// lock as held; Unlock returns nil without asking etcd, so a loss meanwhile shows at the next Lock. Elections do not
// linger.
//
// A name that lingers costs one watch, one goroutine, and each third of the TTL a list of its queue, from its first Lock
// until d after it was last in use.
func WithLinger(d time.Duration) Option {
	return func(o *options) error {
		if d < 0 {
			return fmt.Errorf("etcdlock: linger of %v is negative: 0 turns lingering off", d)
		}
		o.linger = d
		return nil
	}
}

// WithMargin makes every holder that loses touch with etcd give up d earlier than it must. What it has sent by then, to a
// database for one, has that much time to arrive before anybody else can hold: the lock delay of Chubby and Consul, but
// without a wait at any handoff. The default is 0, the most is a quarter of the TTL: a hold then ends
// TTL/20 + d before etcd can give its lock to anyone else, and its lease is not given back before that time has passed.
//
// It is for the loss that the clock tells. Unlock, Resign and Close free the lock as ever, at once. An operator who revokes
// the lease or deletes the ticket leaves no margin. Where late writes must never count, use the token.
func WithMargin(d time.Duration) Option {
	return func(o *options) error {
		if d < 0 {
			return fmt.Errorf("etcdlock: margin of %v is negative: 0 is the default", d)
		}
		o.margin = d
		return nil
	}
}
