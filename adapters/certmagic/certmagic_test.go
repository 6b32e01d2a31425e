package certmagiclock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
	certmagiclock "github.com/etcdlock/etcdlock/adapters/certmagic"
	"github.com/etcdlock/etcdlock/adapters/internal/host"
	"github.com/etcdlock/etcdlock/locktest"
)

var (
	_ certmagic.Storage          = (*certmagiclock.Storage)(nil)
	_ certmagic.TryLocker        = (*certmagiclock.Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*certmagiclock.Storage)(nil)
)

// certmagic's test of locks asks with a context that is over for a lock that is free. A file can be had that way, and
// nothing that has to ask over a network: there the wrapper tries.
const bridge = `
type trying struct{ *certmagiclock.Storage }

func (s trying) Lock(ctx context.Context, name string) error {
	got, err := s.TryLock(context.WithoutCancel(ctx), name)
	if err == nil && !got {
		err = ctx.Err()
	}
	return err
}

func (s trying) Unlock(ctx context.Context, name string) error {
	return s.Storage.Unlock(context.WithoutCancel(ctx), name)
}
`

func TestTheTestOfCertmagic(t *testing.T) {
	const file = "filestorage_test.go"
	const begin = "func TestFileStorageWriteLock(t *testing.T) {\n\tctx := context.Background()\n" +
		"\ttmpDir, err := os.MkdirTemp(os.TempDir(), \"certmagic*\")\n\ttestutil.RequireNoError(t, err, \"allocating tmp dir\")\n" +
		"\tdefer os.RemoveAll(tmpDir)\n\ts := &certmagic.FileStorage{\n\t\tPath: tmpDir,\n\t}\n"
	wrapped := strings.Replace(begin, "&certmagic.FileStorage{\n\t\tPath: tmpDir,\n\t}",
		"trying{&certmagiclock.Storage{Storage: &certmagic.FileStorage{Path: tmpDir}, Session: locktest.New(t).Session(), Prefix: \"/certs/\"}}", 1)
	host.Test(t, "github.com/caddyserver/certmagic", "^TestFileStorageWriteLock$", []string{"TestFileStorageWriteLock"}, []host.Edit{
		host.Put(file, begin, wrapped),
		host.Put(file, "import (", "import (\n\tcertmagiclock \"github.com/etcdlock/etcdlock/adapters/certmagic\"\n\t\"github.com/etcdlock/etcdlock/locktest\"\n"),
	}, map[string]string{"etcdlock_test.go": "package certmagic_test\n\nimport (\n\t\"context\"\n\n" +
		"\tcertmagiclock \"github.com/etcdlock/etcdlock/adapters/certmagic\"\n)\n" + bridge})
}

// storage is that of one process of the fleet.
func storage(t *testing.T, etcd *locktest.Etcd) *certmagiclock.Storage {
	t.Helper()
	return &certmagiclock.Storage{Storage: &certmagic.FileStorage{Path: t.TempDir()}, Session: etcd.Session(), Prefix: "/certs/"}
}

func TestOneProcessAtATime(t *testing.T) {
	etcd := locktest.New(t)
	one, two := storage(t, etcd), storage(t, etcd)
	require.NoError(t, one.Lock(t.Context(), "issue_cert_example.com"))
	got, err := two.TryLock(t.Context(), "issue_cert_example.com")
	require.NoError(t, err)
	require.False(t, got)

	waited := make(chan error, 1)
	go func() { waited <- two.Lock(t.Context(), "issue_cert_example.com") }()
	require.NoError(t, one.Unlock(t.Context(), "issue_cert_example.com"))
	require.NoError(t, <-waited)
	require.ErrorIs(t, one.Unlock(t.Context(), "issue_cert_example.com"), etcdlock.ErrNotHeld)
	require.NoError(t, two.RenewLockLease(t.Context(), "issue_cert_example.com", 0))
	require.NoError(t, two.Unlock(t.Context(), "issue_cert_example.com"))
	require.Empty(t, etcd.Queue("/certs/issue_cert_example.com"))
}

func TestALossIsToldToCertmagic(t *testing.T) {
	etcd := locktest.New(t)
	s := storage(t, etcd)
	require.NoError(t, s.Lock(t.Context(), "issue_cert_example.com"))
	etcd.ExpireLeases()
	require.Eventually(t, func() bool {
		return s.RenewLockLease(t.Context(), "issue_cert_example.com", 0) != nil
	}, 20*time.Second, time.Millisecond)
	require.ErrorIs(t, s.RenewLockLease(t.Context(), "issue_cert_example.com", 0), etcdlock.ErrLost)
	require.ErrorIs(t, s.Unlock(t.Context(), "issue_cert_example.com"), etcdlock.ErrLost)
}
