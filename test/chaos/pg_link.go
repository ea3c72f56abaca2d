package main

import (
	"context"
	"errors"
	"net"
	"sync"
)

// pgLink makes a process's connections to Postgres, and cuts or freezes them.
type pgLink struct {
	mu        sync.Mutex
	conns     map[*pgLinkConn]struct{}
	shut      bool
	connFault connFault
	// frozen is nil unless the process is frozen, and closed when it goes on. Until then connections stay open and transfer
	// nothing.
	frozen chan struct{}
}

// connFault cuts the connection that makes the nth read or write from now on.
type connFault struct {
	write bool // true: before a write is sent; false: after a response was received, which is lost
	left  int  // 0: not armed
}

var errCut = errors.New("connection cut")

func (g *pgLink) dial(ctx context.Context, network, address string) (net.Conn, error) {
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
	c := &pgLinkConn{Conn: nc, pgLink: g}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		nc.Close()
		return nil, errCut
	}
	if g.conns == nil {
		g.conns = map[*pgLinkConn]struct{}{}
	}
	g.conns[c] = struct{}{}
	return c, nil
}

// cut closes all connections; new ones can be made.
func (g *pgLink) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.conns {
		c.Conn.Close()
	}
	clear(g.conns)
}

// shutDown closes all connections and refuses new ones.
func (g *pgLink) shutDown() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	defer g.thaw() // after cut, so that a frozen process transfers nothing more
	g.cut()
}

// freeze blocks all reads, writes and closes until thaw.
func (g *pgLink) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen == nil && !g.shut {
		g.frozen = make(chan struct{})
	}
}

func (g *pgLink) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen != nil {
		close(g.frozen)
		g.frozen = nil
	}
}

// wait returns when the process is not frozen.
func (g *pgLink) wait() {
	g.mu.Lock()
	frozen := g.frozen
	g.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

func (g *pgLink) arm(t connFault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connFault = t
}

// fires counts a read or write and reports whether the armed fault is due.
func (g *pgLink) fires(write bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connFault.left == 0 || g.connFault.write != write {
		return false
	}
	g.connFault.left--
	return g.connFault.left == 0
}

type pgLinkConn struct {
	net.Conn
	pgLink *pgLink
}

func (c *pgLinkConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pgLink.wait() // it may have been received while the process was frozen
	if err == nil && c.pgLink.fires(false) {
		c.Conn.Close()
		return 0, errCut
	}
	return n, err
}

func (c *pgLinkConn) Write(b []byte) (int, error) {
	c.pgLink.wait()
	if c.pgLink.fires(true) {
		c.Conn.Close()
		return 0, errCut
	}
	return c.Conn.Write(b)
}

func (c *pgLinkConn) Close() error {
	c.pgLink.wait() // a frozen process keeps its sessions
	c.pgLink.mu.Lock()
	delete(c.pgLink.conns, c)
	c.pgLink.mu.Unlock()
	return c.Conn.Close()
}
