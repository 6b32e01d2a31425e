package faultproxy

import (
	"bufio"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo is a server that remembers the lines it got and sends them back.
type echo struct {
	net.Listener
	mu    sync.Mutex
	lines []string
}

func (e *echo) got() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.lines...)
}

func newEcho(t *testing.T) (*echo, *Proxy) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e := &echo{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				for s := bufio.NewScanner(conn); s.Scan(); {
					e.mu.Lock()
					e.lines = append(e.lines, s.Text())
					e.mu.Unlock()
					if _, err := conn.Write([]byte(s.Text() + "\n")); err != nil {
						return
					}
				}
			})
		}
	})
	p, err := New(l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, l.Close())
		wg.Wait()
	})
	return e, p
}

type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	c := &client{t, conn, bufio.NewReader(conn)}
	c.send("hello")
	require.Equal(t, "hello\n", c.read(10*time.Second))
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	_, err := c.conn.Write([]byte(s + "\n"))
	require.NoError(c.t, err)
}

// read is the next line, or "" if none came in time.
func (c *client) read(d time.Duration) string {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(d)))
	line, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return line
}

func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, 10*time.Second, time.Millisecond)
}

func TestHeldRequestsArriveWhenItGoesOn(t *testing.T) {
	e, p := newEcho(t)
	c := dial(t, p)
	p.Hold(ToServer)
	c.send("late")
	eventually(t, func() bool { return p.Held(ToServer) == len("late\n") })
	require.Equal(t, []string{"hello"}, e.got())
	p.Resume()
	require.Equal(t, "late\n", c.read(10*time.Second))
}

func TestHeldAnswersWereDoneAndStayUnknown(t *testing.T) {
	e, p := newEcho(t)
	c := dial(t, p)
	p.Hold(ToClient)
	c.send("done")
	eventually(t, func() bool { return p.Held(ToClient) == len("done\n") })
	require.Equal(t, []string{"hello", "done"}, e.got())
	require.Empty(t, c.read(20*time.Millisecond))
	p.Resume()
	require.Equal(t, "done\n", c.read(10*time.Second))
}

func TestHoldAppliesToNewConnectionsToo(t *testing.T) {
	e, p := newEcho(t)
	p.Hold(Both)
	conn, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer conn.Close()
	c := &client{t, conn, bufio.NewReader(conn)}
	c.send("new")
	eventually(t, func() bool { return p.Held(ToServer) == len("new\n") })
	require.Empty(t, e.got())
	p.Resume()
	require.Equal(t, "new\n", c.read(10*time.Second))
}

func TestDelayIsPerDirectionAndKeepsOrder(t *testing.T) {
	const d = 150 * time.Millisecond
	_, p := newEcho(t)
	c := dial(t, p)
	for _, dir := range []Direction{ToServer, ToClient} {
		p.Resume()
		p.Delay(dir, d)
		start := time.Now()
		c.send("one")
		c.send("two")
		require.Equal(t, "one\n", c.read(10*time.Second))
		require.Equal(t, "two\n", c.read(10*time.Second))
		require.GreaterOrEqual(t, time.Since(start), d)
		require.Less(t, time.Since(start), 5*d, "two lines wait together, not one after the other")
	}
}

func TestCutRefusesUntilResume(t *testing.T) {
	_, p := newEcho(t)
	c := dial(t, p)
	p.Cut()
	require.Empty(t, c.read(10*time.Second), "the connection ended")
	eventually(t, func() bool { return p.Conns() == 0 })
	if conn, err := net.Dial("tcp", p.Addr()); err == nil {
		refused := &client{t, conn, bufio.NewReader(conn)}
		require.Empty(t, refused.read(10*time.Second))
		conn.Close()
	}
	p.Resume()
	dial(t, p)
}

func TestDropLosesWhatWasHeld(t *testing.T) {
	e, p := newEcho(t)
	c := dial(t, p)
	p.Hold(ToServer)
	c.send("lost")
	eventually(t, func() bool { return p.Held(ToServer) > 0 })
	p.Drop()
	p.Resume()
	dial(t, p)
	require.Equal(t, []string{"hello", "hello"}, e.got())
}

func TestStrandedRequestIsDeliveredAfterItsSenderLeft(t *testing.T) {
	e, p := newEcho(t)
	c := dial(t, p)
	p.Hold(ToServer)
	c.send("late")
	eventually(t, func() bool { return p.Held(ToServer) > 0 })
	deliver := p.Strand()
	require.Empty(t, c.read(10*time.Second), "the client's end is closed")
	p.Cut()
	p.Resume()
	dial(t, p)
	require.Equal(t, []string{"hello", "hello"}, e.got(), "others go on and the request still waits")
	deliver()
	eventually(t, func() bool { return len(e.got()) == 3 })
	require.Equal(t, "late", e.got()[2])
}
