package rocketmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
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
	minProbePause     = time.Second

	// javaPeer is the language that brokers and proxies name whose protocol is RocketMQ's own implementation: all its versions take
	// binary headers. Others get JSON.
	javaPeer = "JAVA"
)

// brokerConn is a connection of the driver itself to one broker's master, or, for a consumer of the transport Own, to a slave. It
// reconnects when it breaks. Its heartbeats register what uses it: the client's producer groups, so that the broker sends their checks to
// this connection, or a consumer of the transport Own.
//
// A connection whose peer has vanished, without an end that TCP would notice, is made again when a heartbeat isn't answered: within
// heartbeatInterval and heartbeatTimeout, and earlier if a request isn't answered in time, which a heartbeat follows at once.
type brokerConn struct {
	client        *Client
	user          connUser
	name, address string
	work          background.Group
	doubt         chan struct{} // a request was not answered in time
	refusesTools  atomic.Bool   // the broker lets the user not pull as a tool
	indexes       atomic.Bool   // it was seen to find messages by their keys
	nothingAt     sync.Map      // when a topic had no message that could be looked for, by topic

	registering sync.Mutex // held from a heartbeat until its response
	left        bool       // no more heartbeats: the user has unregistered; guarded by registering

	mu      sync.Mutex
	conn    *remoting.Conn // nil while down
	number  int64          // of the connection, among all of the process
	err     error          // why it is down
	since   time.Time      // of the present state
	listed  time.Time      // when a name server listed the broker last
	version int            // of the broker
	tried   chan struct{}  // closed after the first attempt to connect
}

// connections counts the connections of the process.
var connections atomic.Int64

// connUser is what a connection is for.
type connUser interface {
	// heartbeat returns the request that registers the user at the broker.
	heartbeat() *remoting.Command
	// handleRequest handles a request of the broker and returns the response; nil: there is none.
	// It must not block: a response that takes time is sent by conn.Respond.
	handleRequest(b *brokerConn, conn *remoting.Conn, request *remoting.Command) *remoting.Command
	// onBrokerUp is called when the connection is up. first says that the first attempt to connect has succeeded.
	onBrokerUp(b *brokerConn, first bool)
	// onBrokerDown is called when the connection was up and isn't any more.
	onBrokerDown(b *brokerConn, err error)
}

// newBrokerConn starts to connect for user and returns at once.
func (c *Client) newBrokerConn(user connUser, name, address string) *brokerConn {
	b := &brokerConn{client: c, user: user, name: name, address: address, doubt: make(chan struct{}, 1), tried: make(chan struct{}), since: time.Now()}
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
			b.user.onBrokerUp(b, first)
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
	// on its checks. It changes under the lock, so that unregister finds each connection that has registered.
	b.registering.Lock()
	defer b.registering.Unlock()
	response, err := b.register(ctx, conn)
	if err != nil {
		err = conn.Explain(ctx, err)
		conn.Close()
		return nil, printable.Errorf("broker %s at %s: heartbeat: %w", b.name, b.address, err)
	}
	if response.Language == javaPeer && !b.client.config.jsonHeaders {
		conn.UseBinary()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn, b.number, b.err, b.version, b.since = conn, connections.Add(1), nil, response.Version, time.Now()
	return conn, nil
}

// sendHeartbeats sends a heartbeat every heartbeatInterval until the connection breaks, a heartbeat fails, or ctx ends, and
// returns which of these happened.
func (b *brokerConn) sendHeartbeats(ctx context.Context, conn *remoting.Conn) error {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-ctx.Done():
			return printable.Errorf("%w: broker %s at %s: %w", broker.ErrUnavailable, b.name, b.address, remoting.ErrClosed)
		case <-conn.Done():
			return printable.Errorf("%w: broker %s: connection to %s: %w", broker.ErrUnavailable, b.name, b.address, conn.Err())
		case <-tick.C:
		case <-b.doubt:
			if !background.Sleep(ctx, clock.System{}, minProbePause-time.Since(last)) {
				continue
			}
		}
		if err := b.sendHeartbeat(ctx); err != nil && ctx.Err() == nil {
			return printable.Errorf("broker %s at %s: heartbeat: %w", b.name, b.address, err)
		}
	}
}

// sendHeartbeat registers the user at the broker and waits for the response.
func (b *brokerConn) sendHeartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	b.registering.Lock()
	defer b.registering.Unlock()
	b.mu.Lock()
	conn, err := b.conn, b.err
	b.mu.Unlock()
	if conn == nil {
		return err
	}
	_, err = b.register(ctx, conn)
	return err
}

// register sends a heartbeat and waits for its response. The caller holds registering.
func (b *brokerConn) register(ctx context.Context, conn *remoting.Conn) (*remoting.Command, error) {
	if b.left {
		return nil, fmt.Errorf("%w: %w", broker.ErrUnavailable, remoting.ErrClosed)
	}
	return conn.Call(ctx, b.named(b.user.heartbeat()))
}

// unregister sends a request that unregisters the user, and waits for the response. No heartbeat follows.
func (b *brokerConn) unregister(ctx context.Context, request *remoting.Command) error {
	b.registering.Lock()
	defer b.registering.Unlock()
	b.left = true
	return b.afterHeartbeat(ctx, request)
}

// unregisterGroup sends such a request for a group that the user's heartbeats no longer name.
func (b *brokerConn) unregisterGroup(ctx context.Context, request *remoting.Command) error {
	b.registering.Lock()
	defer b.registering.Unlock()
	return b.afterHeartbeat(ctx, request)
}

// afterHeartbeat sends a request that unregisters something. The caller holds registering, so the response to a heartbeat in flight has come:
// brokers handle heartbeats and other requests in parallel, and would list again what an earlier heartbeat names. While the connection is
// down nothing is registered.
func (b *brokerConn) afterHeartbeat(ctx context.Context, request *remoting.Command) error {
	if b.present() == 0 {
		return nil
	}
	_, err := b.call(ctx, request)
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
		b.user.onBrokerDown(b, err)
	}
	if changed && errors.As(err, new(*remoting.TLSError)) {
		b.client.log.Error("no TLS connection to a broker can be made; it is tried again: fix what the error names", keyBroker, b.name, keyError, err)
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

// present returns the number of the connection; 0 while it is down.
func (b *brokerConn) present() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return 0
	}
	return b.number
}

// noteListed keeps that a name server lists the broker at this moment.
func (b *brokerConn) noteListed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed = time.Now()
}

// mayReturn reports whether the connection is down, or has been up only since after t, or no name server has listed the broker since.
func (b *brokerConn) mayReturn(t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conn == nil || b.since.After(t) || b.listed.Before(b.since)
}

func (b *brokerConn) brokerVersion() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.version
}

// named returns a request with the name of the broker, by which a proxy knows for whom it is: bname, or n in what has short names.
func (b *brokerConn) named(request *remoting.Command) *remoting.Command {
	if request.Ext["bname"] != "" || request.Ext["n"] != "" {
		return request
	}
	named := *request
	named.Ext = maps.Clone(request.Ext)
	if named.Ext == nil {
		named.Ext = map[string]string{}
	}
	named.Ext["bname"] = b.name
	return &named
}

// call sends a request and waits for its response. While the connection is down it fails at once.
func (b *brokerConn) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	b.mu.Lock()
	conn, err := b.conn, b.err
	b.mu.Unlock()
	if conn == nil {
		return nil, err
	}
	response, err := conn.Call(ctx, b.named(request))
	if response == nil && errors.Is(err, context.DeadlineExceeded) {
		select {
		case b.doubt <- struct{}{}:
		default:
		}
	}
	return response, err
}

type heartbeatBody struct {
	ClientID  string              `json:"clientID"`
	Producers []heartbeatGroup    `json:"producerDataSet"`
	Consumers []heartbeatConsumer `json:"consumerDataSet"`
}

type heartbeatGroup struct {
	Name string `json:"groupName"`
}

type heartbeatConsumer struct {
	Group         string                  `json:"groupName"`
	Type          string                  `json:"consumeType"`
	Model         string                  `json:"messageModel"`
	From          string                  `json:"consumeFromWhere"`
	Subscriptions []heartbeatSubscription `json:"subscriptionDataSet"`
	UnitMode      bool                    `json:"unitMode"`
}

type heartbeatSubscription struct {
	Topic      string   `json:"topic"`
	Expression string   `json:"subString"`
	Type       string   `json:"expressionType"`
	Version    int64    `json:"subVersion"`
	Tags       []string `json:"tagsSet"`
	Codes      []int    `json:"codeSet"`
	ClassMode  bool     `json:"classFilterMode"`
}

// command returns the request that has the body.
func (h heartbeatBody) command() *remoting.Command {
	b, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return &remoting.Command{Code: remoting.Heartbeat, Body: b}
}

// heartbeat implements connUser: it registers the producer groups that are open now.
func (c *Client) heartbeat() *remoting.Command {
	body := heartbeatBody{ClientID: c.clientID, Producers: []heartbeatGroup{}, Consumers: []heartbeatConsumer{}}
	c.mu.Lock()
	for group := range c.transactionProducers {
		body.Producers = append(body.Producers, heartbeatGroup{group})
	}
	c.mu.Unlock()
	return body.command()
}
