package locktest_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/embedded"
	"github.com/etcdlock/etcdlock/locktest"
)

// world is what a row of the table of behaviours may use. There are two: the etcd in memory, and the real server.
type world interface {
	Client() *clientv3.Client
	Session(opts ...etcdlock.Option) *etcdlock.Session
	Occupy(name, identity string) (release func())
	Queue(name string) []etcdlock.Contender
	Lose(name string)
	ExpireLeases()
	Cut()
	Heal()
	LoseNextAnswer()
	Delay(d time.Duration)
}

var (
	_ world = (*locktest.Etcd)(nil)
	_ world = (*realWorld)(nil)
)

func TestBehavioursInMemory(t *testing.T) {
	for _, b := range behaviours() {
		t.Run(b.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { b.run(t, locktest.New(t), b.name) })
		})
	}
}

func TestBehavioursOnTheRealServer(t *testing.T) {
	etcd, err := embedded.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, etcd.Close()) })
	for _, b := range behaviours() {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			b.run(t, newRealWorld(t, etcd.Endpoints()[0]), b.name)
		})
	}
}

// realWorld is the faults of locktest on the way to a real server.
type realWorld struct {
	t        *testing.T
	endpoint string
	admin    *clientv3.Client // nothing happens to its requests

	mu       sync.Mutex // guards what follows; a leaf
	way      chan struct{}
	loses    int
	delay    time.Duration
	sessions []*etcdlock.Session
	occupied int
}

func newRealWorld(t *testing.T, endpoint string) *realWorld {
	t.Helper()
	w := &realWorld{t: t, endpoint: endpoint, way: open()}
	admin, err := embedded.Dial(endpoint)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close() })
	w.admin = admin
	return w
}

func open() chan struct{} {
	way := make(chan struct{})
	close(way)
	return way
}

// cutConn is a connection on which nothing goes in or out while the way is cut.
type cutConn struct {
	net.Conn
	w *realWorld
}

func (c cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	<-c.w.passable()
	return n, err
}

func (c cutConn) Write(b []byte) (int, error) {
	<-c.w.passable()
	return c.Conn.Write(b)
}

func (w *realWorld) passable() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.way
}

// writes are the calls that LoseNextAnswer counts.
func writes(method string, req any) bool {
	switch {
	case strings.HasSuffix(method, "/LeaseGrant"), strings.HasSuffix(method, "/LeaseRevoke"), strings.HasSuffix(method, "/Put"),
		strings.HasSuffix(method, "/DeleteRange"):
		return true
	case strings.HasSuffix(method, "/Txn"):
		return strings.Contains(fmt.Sprint(req), "request_put") || strings.Contains(fmt.Sprint(req), "request_delete_range")
	}
	return false
}

func (w *realWorld) intercept(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	w.mu.Lock()
	lose, delay := false, w.delay
	if w.loses > 0 && writes(method, req) {
		w.loses--
		lose = true
	}
	w.mu.Unlock()
	err := invoker(ctx, method, req, reply, cc, opts...)
	if lose {
		<-ctx.Done()
		return ctx.Err()
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (w *realWorld) Client() *clientv3.Client {
	w.t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{w.endpoint}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(w.intercept),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				<-w.passable()
				conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
				return cutConn{conn, w}, err
			}),
		},
	})
	require.NoError(w.t, err)
	w.t.Cleanup(func() { w.Heal(); _ = client.Close() })
	return client
}

func (w *realWorld) Session(opts ...etcdlock.Option) *etcdlock.Session {
	w.t.Helper()
	s, err := etcdlock.NewSession(w.t.Context(), w.Client(), opts...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { w.Heal(); _ = s.Close() })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = append(w.sessions, s)
	return s
}

func (w *realWorld) Occupy(name, identity string) (release func()) {
	w.mu.Lock()
	w.occupied++
	key := fmt.Sprintf("%s/locktest-%d", name, w.occupied)
	w.mu.Unlock()
	_, err := w.admin.Put(context.Background(), key, identity)
	require.NoError(w.t, err)
	return func() {
		_, err := w.admin.Delete(context.Background(), key)
		require.NoError(w.t, err)
	}
}

// spy is a Session that is only asked who queues.
func (w *realWorld) Queue(name string) (all []etcdlock.Contender) {
	w.t.Helper()
	holders, waiters := w.contenders(name)
	return append(holders, waiters...)
}

func (w *realWorld) contenders(name string) (holders, waiters []etcdlock.Contender) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	spy, err := etcdlock.NewSession(ctx, w.admin)
	require.NoError(w.t, err)
	defer spy.Close()
	m := etcdlock.NewRWMutex(spy, name)
	holders, err = m.Holders(ctx)
	require.NoError(w.t, err)
	waiters, err = m.Waiters(ctx)
	require.NoError(w.t, err)
	return holders, waiters
}

func (w *realWorld) Lose(name string) {
	w.t.Helper()
	holders, _ := w.contenders(name)
	require.NotEmpty(w.t, holders, "nobody holds %q", name)
	for _, c := range holders {
		_, err := w.admin.Delete(context.Background(), c.Key)
		require.NoError(w.t, err)
	}
}

func (w *realWorld) ExpireLeases() {
	w.mu.Lock()
	sessions := w.sessions
	w.mu.Unlock()
	for _, s := range sessions {
		_, _ = w.admin.Revoke(context.Background(), s.Lease()) // it may be over already
	}
}

func (w *realWorld) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.way = make(chan struct{})
}

func (w *realWorld) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loses, w.delay = 0, 0
	select {
	case <-w.way:
	default:
		close(w.way)
	}
}

func (w *realWorld) LoseNextAnswer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loses++
}

func (w *realWorld) Delay(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay = d
}
