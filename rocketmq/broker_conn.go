package rocketmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	heartbeatInterval = 10 * time.Second
	heartbeatTimeout  = 3 * time.Second
	minReconnectPause = 100 * time.Millisecond
	maxReconnectPause = time.Second
)

// brokerConn is the driver's own connection to one broker's master, beside those of rocketmq-client-go. It reconnects when it
// breaks. Its heartbeats register the client's producer groups, so that the broker sends their checks to this connection.
type brokerConn struct {
	client        *Client
	name, address string
	work          background.Group

	mu      sync.Mutex
	conn    *remoting.Conn // nil while down
	err     error          // why it is down
	since   time.Time      // of the present state
	version int            // of the broker
	tried   chan struct{}  // closed after the first attempt to connect
}

// newBrokerConn starts to connect and returns at once.
func (c *Client) newBrokerConn(name, address string) *brokerConn {
	b := &brokerConn{client: c, name: name, address: address, tried: make(chan struct{}), since: time.Now()}
	b.err = printable.Errorf("%w: broker %s at %s: not connected yet", broker.ErrUnavailable, name, address)
	_ = b.work.Start(context.Background(), func(context.Context) error { // can't fail
		b.work.Go(b.run)
		return nil
	})
	return b
}

// close ends the connection and waits for its goroutine.
func (b *brokerConn) close() {
	_ = b.work.Stop(context.Background()) // ends only when all has ended
}

// run keeps the connection until ctx ends.
func (b *brokerConn) run(ctx context.Context) {
	pause, first := minReconnectPause, true
	background.Loop{Clock: clock.System{}}.Run(ctx, func(ctx context.Context) time.Duration {
		conn, err := b.connect(ctx)
		if err != nil {
			b.setDown(err)
		} else {
			pause = minReconnectPause
			b.client.onBrokerUp(b, first)
		}
		if first {
			first = false
			close(b.tried)
		}
		if err == nil {
			b.setDown(b.sendHeartbeats(ctx, conn))
			conn.Close()
			return 0
		}
		defer func() { pause = min(2*pause, maxReconnectPause) }()
		return pause
	})
}

func (b *brokerConn) connect(ctx context.Context) (*remoting.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	conn, err := remoting.DialTLS(ctx, b.address, b.client.config.TLS, b.client.config.credentials(), b.client.handleRequests(b))
	if err != nil {
		return nil, printable.Errorf("broker %s: %w", b.name, err)
	}
	// The state changes only once the broker has answered the heartbeat: a producer group that sees the connection up can rely
	// on its checks.
	response, err := conn.Call(ctx, b.client.heartbeat())
	if err != nil {
		err = conn.Explain(ctx, err)
		conn.Close()
		return nil, printable.Errorf("broker %s at %s: heartbeat: %w", b.name, b.address, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.err, b.version, b.since = conn, nil, response.Version, time.Now()
	return conn, nil
}

// sendHeartbeats sends a heartbeat every heartbeatInterval until the connection breaks, a heartbeat fails, or ctx ends, and
// returns which of these happened.
func (b *brokerConn) sendHeartbeats(ctx context.Context, conn *remoting.Conn) error {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return printable.Errorf("%w: broker %s at %s: %w", broker.ErrUnavailable, b.name, b.address, remoting.ErrClosed)
		case <-conn.Done():
			return printable.Errorf("%w: broker %s: connection to %s: %w", broker.ErrUnavailable, b.name, b.address, conn.Err())
		case <-tick.C:
		}
		if err := b.sendHeartbeat(ctx); err != nil && ctx.Err() == nil {
			return printable.Errorf("broker %s at %s: heartbeat: %w", b.name, b.address, err)
		}
	}
}

// sendHeartbeat registers the client's producer groups at the broker and waits for the response.
func (b *brokerConn) sendHeartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	_, err := b.call(ctx, b.client.heartbeat())
	return err
}

func (b *brokerConn) setDown(err error) {
	b.mu.Lock()
	was := b.conn
	changed := fmt.Sprint(b.err) != err.Error()
	b.conn, b.err = nil, err
	if was != nil {
		b.since = time.Now()
	}
	b.mu.Unlock()
	if was != nil {
		b.client.onBrokerDown(b, err)
	}
	if changed && errors.As(err, new(*remoting.TLSError)) {
		b.client.log.Error("no TLS connection to a broker can be made; it is tried again: mend what the error says", keyBroker, b.name, keyError, err)
	}
}

// down returns why the connection is down, or nil if it is up.
func (b *brokerConn) down() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// downFor reports whether the connection has been down for longer than d.
func (b *brokerConn) downFor(d time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn == nil && time.Since(b.since) > d
}

// downOrUpSince reports whether the connection is down, or has been up only since after t.
func (b *brokerConn) downOrUpSince(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn == nil || b.since.After(t)
}

func (b *brokerConn) brokerVersion() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// call sends a request and waits for its response. While the connection is down it fails at once.
func (b *brokerConn) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	b.mu.Lock()
	conn, err := b.conn, b.err
	b.mu.Unlock()
	if conn == nil {
		return nil, err
	}
	return conn.Call(ctx, request)
}

type heartbeatBody struct {
	ClientID  string           `json:"clientID"`
	Producers []heartbeatGroup `json:"producerDataSet"`
	Consumers []heartbeatGroup `json:"consumerDataSet"` // always empty: rocketmq-client-go registers the consumers
}

type heartbeatGroup struct {
	Name string `json:"groupName"`
}

// heartbeat returns the request that registers the producer groups that are open now.
func (c *Client) heartbeat() *remoting.Command {
	body := heartbeatBody{ClientID: c.clientID, Producers: []heartbeatGroup{}, Consumers: []heartbeatGroup{}}
	c.mu.Lock()
	for group := range c.transactionProducers {
		body.Producers = append(body.Producers, heartbeatGroup{group})
	}
	c.mu.Unlock()
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings only
	}
	return &remoting.Command{Code: remoting.Heartbeat, Body: b}
}
