package main

import (
	"context"
	"encoding/pem"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/srv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/connectivity"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/rpc"
)

// connection is how to reach etcd: etcdctl's flags by the same names, with the same defaults, and its environment.
type connection struct {
	spec           clientv3.ConfigSpec
	secure         clientv3.SecureConfig
	commandTimeout time.Duration

	user, password              string
	discovery, discoveryService string
	insecureDiscovery           bool
}

func (c *connection) flags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("connection", pflag.ContinueOnError)
	fs.SortFlags = false
	fs.StringSliceVar(&c.spec.Endpoints, "endpoints", []string{"127.0.0.1:2379"}, "`ADDRESSES` of etcd, separated by commas")
	fs.StringVar(&c.secure.Cacert, "cacert", "", "`FILE` with the authority that etcd's certificate is checked against")
	fs.StringVar(&c.secure.Cert, "cert", "", "`FILE` with the certificate to show to etcd")
	fs.StringVar(&c.secure.Key, "key", "", "`FILE` with the key of --cert")
	fs.StringVar(&c.user, "user", "", "`NAME[:PASSWORD]` to log in to etcd with")
	fs.StringVar(&c.password, "password", "", "`PASSWORD` of --user")
	fs.DurationVar(&c.spec.DialTimeout, "dial-timeout", 2*time.Second, "`DURATION` to wait for a connection")
	fs.DurationVar(&c.commandTimeout, "command-timeout", 5*time.Second, "`DURATION` to wait for an answer")
	fs.DurationVar(&c.spec.KeepAliveTime, "keepalive-time", 2*time.Second, "`DURATION` after which an idle connection is checked")
	fs.DurationVar(&c.spec.KeepAliveTimeout, "keepalive-timeout", 6*time.Second, "`DURATION` that the check may take")
	fs.BoolVar(&c.secure.InsecureTransport, "insecure-transport", true, "no TLS unless a certificate is named or the endpoint is https")
	fs.BoolVar(&c.secure.InsecureSkipVerify, "insecure-skip-tls-verify", false, "take any certificate of etcd's: for tests")
	fs.IntVar(&c.spec.MaxCallSendMsgSize, "max-request-bytes", 0, "limit of a request in `BYTES` (default 2 MiB)")
	fs.IntVar(&c.spec.MaxCallRecvMsgSize, "max-recv-bytes", 0, "limit of an answer in `BYTES` (default none)")
	fs.StringVarP(&c.discovery, "discovery-srv", "d", "", "`DOMAIN` whose SRV records name the endpoints")
	fs.StringVar(&c.discoveryService, "discovery-srv-name", "", "`NAME` of the service in those records")
	fs.BoolVar(&c.insecureDiscovery, "insecure-discovery", true, "take http endpoints from SRV records, too")
	return fs
}

// config makes etcd's own configuration of it. Files are read here, so what is wrong with them shows before anything is
// sent.
func (c *connection) config() (*clientv3.Config, error) {
	for flag, d := range map[string]time.Duration{"dial-timeout": c.spec.DialTimeout, "command-timeout": c.commandTimeout} {
		if d <= 0 {
			return nil, failed("--%s %v: how long to wait, such as 5s", flag, d)
		}
	}
	spec := c.spec
	spec.Secure = &c.secure
	if err := c.discover(&spec); err != nil {
		return nil, err
	}
	for _, e := range append(spec.Endpoints, strings.Join(spec.Endpoints, "")) {
		if strings.TrimSpace(e) == "" {
			return nil, failed("--endpoints has an empty address: it takes host:port, such as 127.0.0.1:2379")
		}
	}
	if c.user != "" {
		name, password, ok := strings.Cut(c.user, ":")
		if c.password != "" {
			name, password, ok = c.user, c.password, true
		}
		if !ok || password == "" {
			return nil, failed("--user %s needs a password: --user %s:PASSWORD, --password, or ETCDCTL_PASSWORD", name, name)
		}
		if name == "" {
			return nil, failed("--user has no name: --user NAME:PASSWORD") // etcd's client would not log in
		}
		spec.Auth = &clientv3.AuthConfig{Username: name, Password: password}
	} else if c.password != "" {
		return nil, failed("--password without a user: name it by --user or ETCDCTL_USER")
	}
	if (c.secure.Cert == "") != (c.secure.Key == "") {
		return nil, failed("--cert and --key belong together: name both files, or neither")
	}
	for flag, file := range map[string]string{"cacert": c.secure.Cacert, "cert": c.secure.Cert, "key": c.secure.Key} {
		if err := holdsPEM(flag, file); err != nil {
			return nil, err
		}
	}
	cfg, err := clientv3.NewClientConfig(&spec, zap.NewNop())
	if err != nil {
		return nil, failed("TLS: %w", err)
	}
	cfg.Logger = zap.NewNop() // what matters comes back as an error
	return cfg, nil
}

// holdsPEM checks a file of TLS. Of an authority's file without a certificate etcd's client says nothing, and then trusts
// nobody.
func holdsPEM(flag, file string) error {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return failed("--%s: %w", flag, err)
	}
	want := "CERTIFICATE"
	if flag == "key" {
		want = "KEY"
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, want) {
			return nil
		}
	}
	return failed("--%s: %s has no %s in PEM: it takes a file with \"-----BEGIN …%s-----\"", flag, file, strings.ToLower(want), want)
}

// discover looks up the endpoints where --discovery-srv asks for that.
func (c *connection) discover(spec *clientv3.ConfigSpec) error {
	if c.discovery == "" {
		return nil
	}
	found, err := srv.GetClient("etcd-client", c.discovery, c.discoveryService)
	if err != nil {
		return failed("--discovery-srv: %w", err)
	}
	spec.Endpoints = nil
	for _, e := range found.Endpoints {
		if c.insecureDiscovery || !strings.HasPrefix(e, "http://") {
			spec.Endpoints = append(spec.Endpoints, e)
		}
	}
	if len(spec.Endpoints) == 0 {
		return failed("--discovery-srv: %s names no endpoint that may be used", c.discovery)
	}
	if !c.insecureDiscovery {
		c.secure.ServerName = c.discovery
	}
	return nil
}

// client connects to etcd, and logs in if there is a user.
func (c *connection) client(ctx context.Context) (*clientv3.Client, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	open := *cfg
	open.Username, open.Password = "", "" // a client that cannot log in says nothing of what is wrong with the connection
	client, err := clientv3.New(open)
	if err != nil {
		return nil, failed("%s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	err = c.reach(ctx, client)
	if err == nil && cfg.Username != "" {
		_ = client.Close()
		cfg.DialTimeout = c.commandTimeout // what its login may take
		if client, err = clientv3.New(*cfg); err != nil {
			return nil, failed("login of %s at %s: %w", cfg.Username, strings.Join(cfg.Endpoints, ", "), err)
		}
		return client, nil
	}
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	return client, nil
}

// reach waits for a connection, for --dial-timeout, and says why there is none.
func (c *connection) reach(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.spec.DialTimeout)
	defer cancel()
	conn := client.ActiveConnection()
	conn.Connect()
	for s := conn.GetState(); s != connectivity.Ready; s = conn.GetState() {
		if !conn.WaitForStateChange(ctx, s) {
			r := rpc.New(client)
			defer r.Release()
			if down := r.Down(); down != nil {
				return failed("etcd cannot be reached within %v (--dial-timeout): %w", c.spec.DialTimeout, down)
			}
		}
	}
	return nil
}

// session opens a Session.
func (c *connection) session(ctx context.Context, client *clientv3.Client, opts ...etcdlock.Option) (*etcdlock.Session, error) {
	sctx, cancel := context.WithTimeout(ctx, c.commandTimeout)
	defer cancel()
	s, err := etcdlock.NewSession(sctx, client, opts...)
	if err != nil {
		return nil, failed("%w", err)
	}
	return s, nil
}
