package remoting

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// writeTimeout ends a connection whose peer has stopped reading.
const writeTimeout = 10 * time.Second

// Handler gets the requests that the peer sends. It runs on the reading goroutine: it must not block, and hands work
// that takes time to someone else. What it returns, unless nil, is sent as the response.
type Handler func(c *Conn, request *Command) *Command

// Conn is one connection. Requests run concurrently; a response finds its request by the opaque number. When the
// connection breaks, all pending requests fail at once. It doesn't reconnect.
type Conn struct {
	net     net.Conn
	keys    Credentials
	handler Handler
	done    chan struct{}
	read    sync.WaitGroup

	writing sync.Mutex // guards writes and the buffer
	buffer  []byte

	mu      sync.Mutex // guards all below; never held while writing
	next    int32
	pending map[int32]chan *Command
	err     error // why the connection ended; set once, before done is closed
}

// Dial connects to a name server or broker. keys sign every request; handler may be nil.
func Dial(ctx context.Context, address string, keys Credentials, handler Handler) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %w", broker.ErrUnavailable, address, err)
	}
	return NewConn(nc, keys, handler), nil
}

// NewConn takes over nc, from either side of a connection.
func NewConn(nc net.Conn, keys Credentials, handler Handler) *Conn {
	c := &Conn{net: nc, keys: keys, handler: handler, done: make(chan struct{}), pending: map[int32]chan *Command{}}
	c.read.Go(c.readAll)
	return c
}

// Call sends a request and waits for its response. A response other than success is returned together with a
// *ResponseError. Without a response the error matches broker.ErrUnavailable, and also ctx's error if that was why:
// the request may have taken effect.
func (c *Conn) Call(ctx context.Context, request *Command) (*Command, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answer := make(chan *Command, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.broken()
	}
	c.next++
	opaque := c.next
	c.pending[opaque] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, opaque)
		c.mu.Unlock()
	}()

	signed := *request
	signed.Opaque = opaque
	if !c.keys.IsZero() {
		signed.Ext = make(map[string]string, len(request.Ext)+2)
		for k, v := range request.Ext {
			signed.Ext[k] = v
		}
		c.keys.Sign(&signed)
	}
	if err := c.write(&signed); err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		return r, r.Err()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no answer from %s to request %d: %w", broker.ErrUnavailable, c.net.RemoteAddr(), request.Code, context.Cause(ctx))
	case <-c.done:
		select {
		case r := <-answer: // came just before the end
			return r, r.Err()
		default:
			return nil, c.broken()
		}
	}
}

// Notify sends a request that gets no answer.
func (c *Conn) Notify(request *Command) error {
	return c.write(request.AsOneway())
}

// Respond sends a response made by [Command.Answer] later than the handler's return.
func (c *Conn) Respond(response *Command) error { return c.write(response) }

func (c *Conn) write(cmd *Command) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	b, err := cmd.Append(c.buffer[:0])
	if err != nil {
		return err
	}
	if cap(b) <= 1<<20 {
		c.buffer = b
	}
	err = c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = c.net.Write(b)
	}
	if err != nil {
		// Part of a frame may be out: the stream is of no more use.
		c.end(err)
		return c.broken()
	}
	return nil
}

func (c *Conn) readAll() {
	r := bufio.NewReaderSize(c.net, 64<<10)
	for {
		cmd, err := Read(r)
		if err != nil {
			c.end(err)
			return
		}
		if !cmd.Response() {
			if c.handler != nil {
				if answer := c.handler(c, cmd); answer != nil && !cmd.Oneway() {
					if c.write(answer) != nil {
						return
					}
				}
			}
			continue
		}
		c.mu.Lock()
		answer := c.pending[cmd.Opaque]
		delete(c.pending, cmd.Opaque)
		c.mu.Unlock()
		if answer != nil {
			answer <- cmd
		}
	}
}

func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("closed by the peer")
	}
	c.err = err
	c.mu.Unlock()
	c.net.Close()
	close(c.done)
}

func (c *Conn) broken() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("%w: connection to %s: %w", broker.ErrUnavailable, c.net.RemoteAddr(), c.err)
}

// Close ends the connection and waits for its goroutine. It must not be called from the handler.
func (c *Conn) Close() {
	c.end(ErrClosed)
	c.read.Wait()
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err says why the connection ended: ErrClosed after Close; nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

// LocalAddr is our own.
func (c *Conn) LocalAddr() net.Addr { return c.net.LocalAddr() }
