package remoting

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

const (
	// writeTimeout is when a connection whose peer takes no bytes, as one whose host has vanished, is closed.
	writeTimeout = 3 * time.Second
	// writeStep is how many bytes a peer must take in writeTimeout.
	writeStep = 64 << 10
)

// Handler handles a request of the peer and returns the response; nil sends none, so that it can be sent later with Respond. It is called in
// the goroutine that reads from the connection, so it must not block.
type Handler func(c *Conn, request *Command) *Command

// Conn is one connection. Requests are concurrent; a response is matched to its request by the opaque number. When the connection breaks, all
// pending requests fail at once. It doesn't reconnect. All methods are safe for concurrent use.
type Conn struct {
	net     net.Conn
	keys    Credentials
	handler Handler
	done    chan struct{}
	work    sync.WaitGroup // what reads, and what writes for a Call: added with mu held while err is nil, so while it reads

	dialled   string      // the address given to Dial; empty after NewConn
	tls       *tls.Config // that given to DialTLS
	responded atomic.Bool // a response has been read
	binary    atomic.Bool // see UseBinary

	writing chan struct{} // has a token while something is written; guards buffer
	buffer  []byte

	mu      sync.Mutex // guards all below; never held while writing
	next    int32
	pending map[int32]chan *Command
	err     error // why the connection ended; set once, before done is closed
}

// Dial connects to a name server or broker. Every request is signed with keys. handler handles the peer's requests; with nil they are
// ignored.
func Dial(ctx context.Context, address string, keys Credentials, handler Handler) (*Conn, error) {
	return DialTLS(ctx, address, nil, keys, handler)
}

// NewConn returns a Conn that uses nc, a client's or a server's end of a connection, and closes it.
func NewConn(nc net.Conn, keys Credentials, handler Handler) *Conn {
	c := &Conn{net: nc, keys: keys, handler: handler, done: make(chan struct{}), writing: make(chan struct{}, 1), pending: map[int32]chan *Command{}}
	c.work.Go(c.readAll)
	return c
}

// Call sends a request and waits for its response. A response other than Success is returned together with a *ResponseError. Without a
// response the error matches broker.ErrUnavailable, and ctx's error if ctx has ended: the request may have taken effect. If ctx has
// ended before the call, nothing is sent and the error is ctx's alone.
func (c *Conn) Call(ctx context.Context, request *Command) (*Command, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	response := make(chan *Command, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, c.broken()
	}
	c.next++
	opaque := c.next
	c.pending[opaque] = response
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, opaque)
		c.mu.Unlock()
	}()

	signed := *request
	signed.Opaque, signed.Binary = opaque, c.binary.Load()
	if !c.keys.IsZero() {
		signed.Ext = make(map[string]string, len(request.Ext)+2)
		for k, v := range request.Ext {
			// A peer in Java reads an empty value of a binary header as null, and then finds that the signature over it is wrong.
			if v != "" || !signed.Binary {
				signed.Ext[k] = v
			}
		}
		c.keys.Sign(&signed)
	}
	// It is written beside the wait for the response: ctx bounds how long the caller waits, also for a peer that takes no bytes, but a command
	// is written whole, or the connection ends.
	b, err := c.begin(ctx, &signed)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		<-c.writing
		return nil, c.broken()
	}
	c.work.Go(func() { _ = c.send(b) }) // an error ends the connection
	c.mu.Unlock()
	select {
	case r := <-response:
		return r, r.errorOf(request.Code)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: no response from %s to request %d: %w", broker.ErrUnavailable, c.net.RemoteAddr(), request.Code, context.Cause(ctx))
	case <-c.done:
		select {
		case r := <-response: // it came just before the connection ended
			return r, r.errorOf(request.Code)
		default:
			return nil, c.broken()
		}
	}
}

// UseBinary makes later Calls send binary headers, which cost both ends less than JSON. The peer must take them.
func (c *Conn) UseBinary() { c.binary.Store(true) }

// Notify sends a request that gets no response.
func (c *Conn) Notify(request *Command) error {
	return c.write(context.Background(), request.AsOneway())
}

// Respond sends a response, made with [Command.Answer], to a request whose Handler returned nil.
func (c *Conn) Respond(response *Command) error { return c.write(context.Background(), response) }

// write writes a command. ctx bounds the wait until other commands are written.
func (c *Conn) write(ctx context.Context, cmd *Command) error {
	b, err := c.begin(ctx, cmd)
	if err != nil {
		return err
	}
	return c.send(b)
}

// begin waits until other commands are written, and returns the bytes of this one, which send must be given.
func (c *Conn) begin(ctx context.Context, cmd *Command) ([]byte, error) {
	select {
	case c.writing <- struct{}{}:
	default:
		select {
		case c.writing <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: request %d to %s was not sent: %w", broker.ErrUnavailable, cmd.Code, c.net.RemoteAddr(), context.Cause(ctx))
		case <-c.done:
			return nil, c.broken()
		}
	}
	b, err := cmd.Append(c.buffer[:0])
	if err != nil {
		<-c.writing
		return nil, err
	}
	if cap(b) <= 1<<20 {
		c.buffer = b
	}
	return b, nil
}

// send writes the bytes of a command.
func (c *Conn) send(b []byte) (err error) {
	defer func() { <-c.writing }()
	for len(b) > 0 && err == nil {
		n := min(len(b), writeStep)
		if err = c.net.SetWriteDeadline(time.Now().Add(writeTimeout)); err == nil {
			_, err = c.net.Write(b[:n])
		}
		b = b[n:]
	}
	if err != nil {
		// Part of a frame may have been sent, so no frame can follow.
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
				if response := c.handler(c, cmd); response != nil && !cmd.Oneway() {
					if c.write(context.Background(), response) != nil {
						return
					}
				}
			}
			continue
		}
		c.responded.Store(true)
		c.mu.Lock()
		response := c.pending[cmd.Opaque]
		delete(c.pending, cmd.Opaque)
		c.mu.Unlock()
		if response != nil { // nil: the call has ended before its response came
			response <- cmd
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

// Close closes the connection and waits for its goroutines. It must not be called by the Handler.
func (c *Conn) Close() {
	c.end(ErrClosed)
	c.work.Wait()
}

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection has ended: ErrClosed after Close. It returns nil while the connection is open.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.net.LocalAddr() }
