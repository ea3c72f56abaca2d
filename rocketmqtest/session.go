package rocketmqtest

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	writeTimeout = 10 * time.Second
	maxUnwritten = 64 << 20 // bytes of bodies; beyond it the connection of a slow client is closed
)

// session is a connection of a client.
type session struct {
	endpoint *endpoint
	net      net.Conn // over TLS if the server uses it
	tcp      net.Conn // the connection itself
	remote   netip.AddrPort
	ended    chan struct{}        // closed at the end of the connection
	gate     atomic.Pointer[gate] // nil: open

	client     string // the client's id since its first heartbeat; guarded by Server.mu
	language   string // of the client, as its last heartbeat has it; guarded by Server.mu
	version    int    // of the client's protocol; guarded by Server.mu
	generation int    // the endpoint's when it was accepted; guarded by Server.mu

	mu        sync.Mutex
	unwritten []outgoing
	bytes     int
	closed    bool
	wake      chan struct{} // capacity 1: there is something to write, or closed
}

// outgoing is a command that is to be written.
type outgoing struct {
	*remoting.Command
	decided bool // the hooks have been called for it
}

// gate stops a connection from being read and written until it is opened.
type gate struct{ opened chan struct{} }

// newSession returns a session whose goroutines are not started yet.
func newSession(e *endpoint, nc net.Conn) *session {
	remote, _ := nc.RemoteAddr().(*net.TCPAddr)
	tcp := nc
	if config := e.server.config.TLS; config != nil {
		nc = tls.Server(tcp, config) // its first use makes the handshake
	}
	return &session{endpoint: e, net: nc, tcp: tcp, remote: remote.AddrPort(), ended: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// send queues a command for writing. It never blocks. On a connection that has ended, the command is lost.
func (c *session) send(cmd *remoting.Command) {
	if cmd.Version == 0 {
		cmd.Version = c.endpoint.server.config.Version.ordinal()
	}
	cmd.Language = "JAVA" // by which clients know what a broker takes
	c.enqueue(outgoing{Command: cmd})
}

// enqueue is send for a command whose hooks may have decided already.
func (c *session) enqueue(cmd outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.unwritten = append(c.unwritten, cmd)
	if c.bytes += len(cmd.Body); c.bytes > maxUnwritten {
		c.end()
		return
	}
	c.wakeWriter()
}

// wakeWriter makes writeAll check the queue.
func (c *session) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close closes the connection. Its goroutines end by themselves.
func (c *session) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

// end is close with c.mu held.
func (c *session) end() {
	if c.closed {
		return
	}
	c.closed = true
	close(c.ended)
	c.unwritten, c.bytes = nil, 0
	c.tcp.Close() // closing a TLS connection waits for a client that doesn't read
	c.wakeWriter()
}

// awaitOpen waits while the gate is shut. It returns false if the connection has ended.
func (c *session) awaitOpen() bool {
	for {
		g := c.gate.Load()
		if g == nil {
			return true
		}
		select {
		case <-g.opened:
		case <-c.ended:
			return false
		}
	}
}

// setShut closes the gate, or opens it. It is called with Server.mu held.
func (c *session) setShut(shut bool) {
	switch g := c.gate.Load(); {
	case shut && g == nil:
		c.gate.Store(&gate{opened: make(chan struct{})})
	case !shut && g != nil:
		c.gate.Store(nil)
		close(g.opened)
	}
}

// writeAll writes queued commands until the connection ends. Each write has all commands that are queued.
func (c *session) writeAll() {
	var b []byte
	var batch []outgoing
	for range c.wake {
		if !c.awaitOpen() {
			return
		}
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		batch, c.unwritten, c.bytes = c.unwritten, batch[:0], 0
		c.mu.Unlock()
		b = b[:0]
		last := false // the connection is reset after this batch
		for i, cmd := range batch {
			times := 1
			if !cmd.decided && !cmd.Response() {
				times, last = c.endpoint.server.controlOutgoing(c, cmd.Command)
			}
			for range times {
				next, err := cmd.Append(b)
				if err != nil {
					c.endpoint.server.config.Logger.Error("a response could not be encoded; the client gets none", "code", cmd.Code, "error", err)
					next = b
				}
				b = next
			}
			batch[i] = outgoing{}
			if last {
				break
			}
		}
		err := c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = c.net.Write(b)
		}
		if err != nil || last {
			c.close()
			return
		}
		if cap(b) > 1<<20 {
			b = nil
		}
	}
}

// readAll handles requests until the connection ends.
func (c *session) readAll() {
	r := bufio.NewReaderSize(c.net, 64<<10)
	for {
		cmd, err := remoting.Read(r)
		if err == nil && cmd.Code == remoting.Heartbeat {
			c.endpoint.server.identify(c, cmd)
		}
		if !c.awaitOpen() || err != nil { // a shut gate hides the end of the connection, too
			c.close()
			return
		}
		if !cmd.Response() { // the broker sends no requests that have a response
			c.endpoint.server.receive(c, cmd)
		}
	}
}
