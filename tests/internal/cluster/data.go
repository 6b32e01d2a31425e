package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Save kills the members, copies their data aside, and starts them again: a
// cold backup, to which Load goes back. A second Save replaces the first.
func (c *Cluster) Save(ctx context.Context) error {
	return c.whileDown(ctx, func(m *Member) error {
		if err := os.RemoveAll(m.dir + ".saved"); err != nil {
			return err
		}
		return os.CopyFS(m.dir+".saved", os.DirFS(m.dir))
	})
}

// Load kills the members and starts them on what Save kept: revisions and
// leases go back to that moment, which is what a restore does to clients.
func (c *Cluster) Load(ctx context.Context) error {
	return c.whileDown(ctx, func(m *Member) error {
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
		return os.CopyFS(m.dir, os.DirFS(m.dir+".saved"))
	})
}

// Empty kills the members and starts a new, empty cluster at their addresses.
func (c *Cluster) Empty(ctx context.Context) error {
	for _, m := range c.Members {
		if err := m.Kill(); err != nil {
			return err
		}
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
	}
	return c.bootstrap(ctx)
}

func (c *Cluster) whileDown(ctx context.Context, do func(*Member) error) error {
	for _, m := range c.Members {
		if err := m.Kill(); err != nil {
			return err
		}
	}
	for _, m := range c.Members {
		if err := do(m); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	for _, m := range c.Members {
		if err := m.start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// Replace removes the member from the cluster, for good, and lets a new one
// with an empty directory join at the same client address. The others must
// have a quorum.
func (c *Cluster) Replace(ctx context.Context, m *Member) error {
	if m.PeerLink != nil {
		return errors.New("cluster: members behind peer links cannot be replaced")
	}
	var others []string
	for _, o := range c.Members {
		if o != m {
			others = append(others, o.addr)
		}
	}
	cli, err := NewClient(others...)
	if err != nil {
		return err
	}
	defer cli.Close()
	// etcd refuses changes of members until all have been connected for a while.
	settled := func(change func(context.Context) error) error {
		for {
			// A try of its own: a request that the leader took on its way out is
			// never answered.
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := change(try)
			cancel()
			if err == nil {
				return nil
			}
			if perr := pause(ctx, 200*time.Millisecond); perr != nil {
				return fmt.Errorf("cluster: replace %s: %w", m.Name, errors.Join(perr, err))
			}
		}
	}
	if err := settled(func(ctx context.Context) error {
		list, err := cli.MemberList(ctx)
		if err != nil {
			return err
		}
		for _, lm := range list.Members {
			if lm.Name == m.Name {
				_, err = cli.MemberRemove(ctx, lm.ID)
			}
		}
		return err
	}); err != nil {
		return err
	}
	if err := m.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(m.dir); err != nil {
		return err
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	m.peer, m.listen = ports[0], ports[0] // the old peer address may still be remembered as removed
	m.Name = fmt.Sprintf("%s-%d", filepath.Base(m.dir), time.Now().UnixNano())
	if err := settled(func(ctx context.Context) error {
		_, err := cli.MemberAdd(ctx, []string{"http://" + m.peer})
		if errors.Is(err, rpctypes.ErrPeerURLExist) {
			return nil // an earlier try got through
		}
		return err
	}); err != nil {
		return err
	}
	m.state, m.initial = "existing", c.initial()
	if err := m.start(); err != nil {
		return err
	}
	return m.WaitReady(ctx)
}
