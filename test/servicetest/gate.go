package servicetest

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// Gate is an address that leads to a server while it is open.
type Gate struct {
	t       testing.TB
	Address string
	server  string
	work    sync.WaitGroup

	mu          sync.Mutex
	connections map[net.Conn]bool // nil while the gate is closed
}

// NewGate returns an open Gate.
func NewGate(t testing.TB, server string) *Gate {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{t: t, Address: listener.Addr().String(), server: server}
	g.Open()
	g.work.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			g.work.Go(func() { g.pass(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		g.Close()
		g.work.Wait()
	})
	return g
}

// Open lets connections through.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connections = map[net.Conn]bool{}
}

// Close ends all connections, and new ones as they come.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.connections {
		c.Close()
	}
	g.connections = nil
}

func (g *Gate) pass(client net.Conn) {
	defer g.leave(client)
	if !g.enter(client) {
		return
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", g.server)
	if err != nil {
		g.t.Errorf("pass to %s: %v", g.server, err)
		return
	}
	defer g.leave(server)
	if !g.enter(server) {
		return
	}
	g.work.Go(func() {
		_, _ = io.Copy(server, client) // to its end, whatever that is
		server.Close()
	})
	_, _ = io.Copy(client, server)
}

func (g *Gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connections == nil {
		return false
	}
	g.connections[c] = true
	return true
}

func (g *Gate) leave(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.connections, c)
	c.Close()
}
