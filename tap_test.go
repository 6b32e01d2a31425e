package etcdlock_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/framework/integration"
	"google.golang.org/grpc"
)

// tap sits between the etcd client and the wire of one client: it counts requests and lets a test lose or repeat them.
type tap struct {
	mu    sync.Mutex
	count map[string]int
	// unary, if set, decides about each request; call sends it.
	unary func(method string, call func() error) error
}

// newTappedClient returns a client of member 0 and its tap.
func newTappedClient(t *testing.T, clus *integration.Cluster) (*clientv3.Client, *tap) {
	t.Helper()
	tp := &tap{count: map[string]int{}}
	client, err := integration.NewClient(t, clientv3.Config{
		Endpoints: []string{clus.Members[0].GRPCURL},
		DialOptions: []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(tp.intercept),
			grpc.WithChainStreamInterceptor(tp.stream),
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client, tp
}

func (tp *tap) intercept(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	name := method[strings.LastIndexByte(method, '/')+1:]
	tp.mu.Lock()
	tp.count[name]++
	unary := tp.unary
	tp.mu.Unlock()
	call := func() error {
		sender := ctx
		if ctx.Err() != nil { // its sender has left: the network delivers it late
			sender = context.WithoutCancel(ctx)
		}
		return invoker(sender, method, req, reply, cc, opts...)
	}
	if unary != nil {
		return unary(name, call)
	}
	return call()
}

func (tp *tap) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	tp.mu.Lock()
	tp.count["stream "+method[strings.LastIndexByte(method, '/')+1:]]++
	tp.mu.Unlock()
	return streamer(ctx, desc, cc, method, opts...)
}

// onUnary sets what happens to requests from now on.
func (tp *tap) onUnary(f func(method string, call func() error) error) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.unary = f
}

// requests returns the unary requests counted since the last call.
func (tp *tap) requests() map[string]int {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	was := tp.count
	tp.count = map[string]int{}
	return was
}
