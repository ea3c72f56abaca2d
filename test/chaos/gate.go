package main

import (
	"context"
	"errors"
	"net"
	"sync"
)

// gate is a process' way to Postgres. It can be cut, for the moment or for good, from one instant to the next.
type gate struct {
	mu    sync.Mutex
	conns map[*gateConn]struct{}
	shut  bool
	trap  trap
	// frozen, if not nil, is closed when the process goes on: until then its connections stay open and nothing comes
	// through.
	frozen chan struct{}
}

// trap cuts the connection that makes the nth read or write from now on.
type trap struct {
	write bool // before what is written leaves; else when an answer has come, which is lost
	left  int  // 0: not armed
}

var errCut = errors.New("connection cut")

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.wait()
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut {
		return nil, errCut
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &gateConn{Conn: nc, gate: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		nc.Close()
		return nil, errCut
	}
	if g.conns == nil {
		g.conns = map[*gateConn]struct{}{}
	}
	g.conns[c] = struct{}{}
	return c, nil
}

// cut ends all connections; new ones can be made.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Conn.Close()
	}
	clear(g.conns)
}

// shutDown ends all connections and lets none be made any more.
func (g *gate) shutDown() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	defer g.thaw() // when nothing can come through any more
	g.cut()
}

// freeze holds everything back until thaw.
func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen == nil && !g.shut {
		g.frozen = make(chan struct{})
	}
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen != nil {
		close(g.frozen)
		g.frozen = nil
	}
}

// wait returns when the process is not frozen.
func (g *gate) wait() {
	g.mu.Lock()
	frozen := g.frozen
	g.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

func (g *gate) arm(t trap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trap = t
}

// sprung counts a read or write and tells whether the trap goes off.
func (g *gate) sprung(write bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trap.left == 0 || g.trap.write != write {
		return false
	}
	g.trap.left--
	return g.trap.left == 0
}

type gateConn struct {
	net.Conn
	gate *gate
}

func (c *gateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.wait() // what has come may have come while the process was frozen
	if err == nil && c.gate.sprung(false) {
		c.Conn.Close()
		return 0, errCut
	}
	return n, err
}

func (c *gateConn) Write(b []byte) (int, error) {
	c.gate.wait()
	if c.gate.sprung(true) {
		c.Conn.Close()
		return 0, errCut
	}
	return c.Conn.Write(b)
}

func (c *gateConn) Close() error {
	c.gate.wait() // a frozen process keeps its sessions
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}
