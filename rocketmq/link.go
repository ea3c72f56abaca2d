package rocketmq

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	heartbeatInterval = 10 * time.Second
	heartbeatTimeout  = 3 * time.Second
	minReconnect      = 100 * time.Millisecond
	maxReconnect      = time.Second
)

// link keeps one connection to a broker's master: it connects again when the connection breaks, and tells the broker
// with heartbeats which producer groups we answer checks for.
type link struct {
	client        *Client
	name, address string
	stop          context.CancelFunc
	ended         chan struct{} // closed when run returned

	mu      sync.Mutex
	conn    *remoting.Conn // nil while down
	err     error          // why it is down
	since   time.Time      // of the present state
	version int            // of the broker
	tried   chan struct{}  // closed after the first attempt to connect
}

func (c *Client) newLink(name, address string) *link {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{client: c, name: name, address: address, stop: cancel, ended: make(chan struct{}), tried: make(chan struct{}), since: time.Now()}
	l.err = printable.Errorf("%w: broker %s at %s: not connected yet", broker.ErrUnavailable, name, address)
	go l.run(ctx)
	return l
}

func (l *link) close() {
	l.stop()
	<-l.ended
}

func (l *link) run(ctx context.Context) {
	defer close(l.ended)
	wait, first := minReconnect, true
	for ctx.Err() == nil {
		conn, err := l.connect(ctx)
		if err != nil {
			l.setDown(err)
		} else {
			wait = minReconnect
			l.client.linkUp(l, first)
		}
		if first {
			first = false
			close(l.tried)
		}
		if err == nil {
			l.setDown(l.beat(ctx, conn)) // when it breaks
			conn.Close()
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, maxReconnect)
	}
}

func (l *link) connect(ctx context.Context) (*remoting.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	conn, err := remoting.Dial(ctx, l.address, l.client.config.credentials(), l.client.serve(l))
	if err != nil {
		return nil, printable.Errorf("broker %s: %w", l.name, err)
	}
	// The state changes only once the broker has taken the heartbeat: whoever finds the link up may count on checks.
	answer, err := conn.Call(ctx, l.client.heartbeat())
	if err != nil {
		conn.Close()
		return nil, printable.Errorf("broker %s at %s: heartbeat: %w", l.name, l.address, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.err, l.version, l.since = conn, nil, answer.Version, time.Now()
	return conn, nil
}

// beat sends heartbeats until the connection breaks, the broker stops answering, or ctx ends, and says which.
func (l *link) beat(ctx context.Context, conn *remoting.Conn) error {
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return printable.Errorf("%w: broker %s at %s: %w", broker.ErrUnavailable, l.name, l.address, remoting.ErrClosed)
		case <-conn.Done():
			return printable.Errorf("%w: broker %s: connection to %s: %w", broker.ErrUnavailable, l.name, l.address, conn.Err())
		case <-tick.C:
		}
		if err := l.register(ctx); err != nil && ctx.Err() == nil {
			return printable.Errorf("broker %s at %s: heartbeat: %w", l.name, l.address, err)
		}
	}
}

// register tells the broker our producer groups, and waits for its answer.
func (l *link) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	_, err := l.call(ctx, l.client.heartbeat())
	return err
}

func (l *link) setDown(err error) {
	l.mu.Lock()
	was := l.conn
	l.conn, l.err = nil, err
	if was != nil {
		l.since = time.Now()
	}
	l.mu.Unlock()
	if was != nil {
		l.client.linkDown(l, err)
	}
}

// down says why there is no connection, or nil.
func (l *link) down() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) brokerVersion() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

func (l *link) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	l.mu.Lock()
	conn, err := l.conn, l.err
	l.mu.Unlock()
	if conn == nil {
		return nil, err
	}
	return conn.Call(ctx, request)
}

type heartbeatBody struct {
	ClientID  string           `json:"clientID"`
	Producers []heartbeatGroup `json:"producerDataSet"`
	Consumers []heartbeatGroup `json:"consumerDataSet"` // always empty: consumers are the client's own business
}

type heartbeatGroup struct {
	Name string `json:"groupName"`
}

func (c *Client) heartbeat() *remoting.Command {
	body := heartbeatBody{ClientID: c.id, Producers: []heartbeatGroup{}, Consumers: []heartbeatGroup{}}
	c.mu.Lock()
	for group := range c.transactors {
		body.Producers = append(body.Producers, heartbeatGroup{group})
	}
	c.mu.Unlock()
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings only
	}
	return &remoting.Command{Code: remoting.Heartbeat, Body: b}
}
