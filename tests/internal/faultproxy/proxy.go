// Package faultproxy is a TCP proxy for one link between a client and a member
// that can do to the traffic what networks do: hold it back in one direction or
// both while the connections stay up, delay it, cut it, deliver a request after
// its sender has given up, and let everything go on. Bytes are never reordered
// or lost within a connection that lives: what was held back arrives later, as
// TCP would have it.
package faultproxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Direction of traffic; the values can be combined with |.
type Direction int

// The two directions of a link, and both.
const (
	ToServer Direction = 1 << iota
	ToClient
	Both = ToServer | ToClient
)

// Proxy forwards connections to one target. Its methods may be called from
// several goroutines, and act on connections that exist as well as on later ones.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	rules  rules
	links  map[*link]struct{}
	closed bool
}

// rules are what the proxy does at the moment.
type rules struct {
	hold   Direction
	delays [2]time.Duration // towards the server, towards the client
	cut    bool
}

// New listens on a free loopback port and forwards to target (host:port).
func New(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p := &Proxy{listener: l, target: target, links: map[*link]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where clients connect, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Hold keeps back the traffic of the given directions, those held already
// included, until Resume. Connections stay up and new ones are accepted.
func (p *Proxy) Hold(d Direction) { p.change(func(r *rules) { r.hold |= d }) }

// Delay makes traffic of the given directions arrive later by d, counted from
// when it was sent.
func (p *Proxy) Delay(dir Direction, d time.Duration) {
	p.change(func(r *rules) {
		if dir&ToServer != 0 {
			r.delays[0] = d
		}
		if dir&ToClient != 0 {
			r.delays[1] = d
		}
	})
}

// Cut closes all connections and refuses new ones until Resume.
func (p *Proxy) Cut() {
	p.change(func(r *rules) { r.cut = true })
	p.Drop()
}

// Resume ends what Hold, Delay and Cut began. Traffic held back goes on.
func (p *Proxy) Resume() { p.change(func(r *rules) { *r = rules{} }) }

// Drop closes all connections, so that what is held back is lost; new ones are
// accepted. Stranded connections stay: they have no client to take away.
func (p *Proxy) Drop() {
	for _, l := range p.all() {
		if !l.isStranded() {
			l.close()
		}
	}
}

// Strand takes the clients away from all connections and keeps the members'
// ends with what was sent to them and is still held back. The function it
// returns delivers that, whatever the proxy does to other connections, and
// returns when it is written. The connections end with the Proxy.
func (p *Proxy) Strand() (deliver func()) {
	links := p.all()
	for _, l := range links {
		l.strand()
	}
	return func() {
		for _, l := range links {
			l.up.release()
		}
		for _, l := range links {
			l.up.waitEmpty()
		}
	}
}

// Held is the number of bytes that wait in the given directions.
func (p *Proxy) Held(d Direction) int {
	n := 0
	for _, l := range p.all() {
		if d&ToServer != 0 {
			n += l.up.size()
		}
		if d&ToClient != 0 {
			n += l.down.size()
		}
	}
	return n
}

// Conns is the number of connections, stranded ones included.
func (p *Proxy) Conns() int { return len(p.all()) }

// Close ends every connection and waits for the proxy's goroutines.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	for _, l := range p.all() {
		l.close()
	}
	p.wg.Wait()
	return err
}

func (p *Proxy) change(f func(*rules)) {
	p.mu.Lock()
	f(&p.rules)
	r := p.rules
	links := p.allLocked()
	p.mu.Unlock()
	for _, l := range links {
		l.apply(r)
	}
}

func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.allLocked()
}

func (p *Proxy) allLocked() []*link {
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(conn) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.DialTimeout("tcp", p.target, time.Second)
	if err != nil {
		client.Close()
		return
	}
	l := newLink(client, server)
	p.mu.Lock()
	if p.closed || p.rules.cut {
		p.mu.Unlock()
		l.close()
		return
	}
	p.links[l] = struct{}{}
	l.apply(p.rules) // under mu: a change in between would be missed
	p.mu.Unlock()
	l.run()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}
