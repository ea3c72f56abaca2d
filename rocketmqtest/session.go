package rocketmqtest

import (
	"bufio"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	writeTimeout = 10 * time.Second
	maxUnwritten = 64 << 20 // bytes of bodies; a client that reads so slowly is cut off
)

// session is one client's connection.
type session struct {
	endpoint *endpoint
	net      net.Conn
	remote   netip.AddrPort

	client string // its id, once it has sent a heartbeat; guarded by Server.mu

	mu        sync.Mutex
	unwritten []*remoting.Command
	bytes     int
	closed    bool
	wake      chan struct{} // capacity 1: there is something to write, or closed
}

func newSession(e *endpoint, nc net.Conn) *session {
	remote, _ := nc.RemoteAddr().(*net.TCPAddr)
	return &session{endpoint: e, net: nc, remote: remote.AddrPort(), wake: make(chan struct{}, 1)}
}

// send has a command written. It never blocks; what is sent to a connection that has ended is lost.
func (c *session) send(cmd *remoting.Command) {
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

func (c *session) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close ends the connection; its goroutines follow.
func (c *session) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
}

func (c *session) end() {
	c.closed = true
	c.unwritten, c.bytes = nil, 0
	c.net.Close()
	c.wakeWriter()
}

// writeAll writes what is sent, as much at once as there is.
func (c *session) writeAll() {
	var b []byte
	var batch []*remoting.Command
	for range c.wake {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		batch, c.unwritten, c.bytes = c.unwritten, batch[:0], 0
		c.mu.Unlock()
		b = b[:0]
		for i, cmd := range batch {
			next, err := cmd.Append(b)
			if err != nil {
				c.endpoint.server.config.Logger.Error("can't encode an answer", "code", cmd.Code, "err", err)
				next = b
			}
			b, batch[i] = next, nil
		}
		err := c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = c.net.Write(b)
		}
		if err != nil {
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
		if err != nil {
			c.close()
			return
		}
		if !cmd.Response() { // the broker asks nothing that is answered
			c.endpoint.server.receive(c, cmd)
		}
	}
}
