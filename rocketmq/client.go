package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/repeat"
)

// Client is the driver for Apache RocketMQ. All methods are safe for concurrent use.
type Client struct {
	config   Config
	repeated *repeat.Logger // what log writes to, flushed by Close
	log      *slog.Logger
	listener *Listener
	id       string // under which brokers list our own connections
	names    *nameServers
	async    chan struct{} // a slot for each send in flight by SendAsync
	routes   routes

	postponed postponed

	stop context.CancelFunc // ends the watch
	work sync.WaitGroup     // the watch, sends, renewals; Add only through begin

	mu          sync.Mutex
	closed      bool
	producer    rmq.Producer     // nil until a broker was reached
	links       map[string]*link // by the broker's name
	transactors map[string]*transactor
	consumers   map[*consumer]struct{}
}

var (
	_ broker.Sender                    = (*Client)(nil)
	_ broker.Scheduler                 = (*Client)(nil)
	_ broker.Subscriber                = (*Client)(nil)
	_ broker.TransactionProducerOpener = (*Client)(nil)
)

var errClientClosed = fmt.Errorf("%w: client is closed", broker.ErrUnavailable)

// Open reaches a name server, connects to the brokers that it lists, and proves the credentials to them. It fails if no
// broker takes us, unless it is to wait for one (Config.AwaitBroker); the error names the address. ctx bounds opening
// only.
func Open(ctx context.Context, config Config) (*Client, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	repeated := repeat.New(config.Logger, repeat.Config{})
	adoptClientLog(repeated.Logger)

	instance := uuid.NewString()
	c := &Client{
		config: config, repeated: repeated, log: repeated.Logger, listener: config.Listener.guarded(repeated.Logger),
		id:          config.Service + "-" + instance,
		names:       newNameServers(config.NameServers, repeated.Logger),
		async:       make(chan struct{}, config.MaxAsync),
		links:       map[string]*link{},
		transactors: map[string]*transactor{},
		consumers:   map[*consumer]struct{}{},
	}
	c.routes.names, c.routes.missing, c.routes.unlisted = c.names, c.missing, c.unlisted
	c.postponed.wake = make(chan struct{}, 1)
	connect := func(ctx context.Context) error { return c.open(ctx, instance) }
	if err := c.postpone("connect", connect(ctx), connect); err != nil {
		for _, l := range c.links {
			l.close()
		}
		c.names.close()
		repeated.Flush()
		return nil, err
	}
	watch, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.work.Go(func() { c.watch(watch) })
	c.work.Go(func() { c.await(watch) })
	return c, nil
}

func (c *Client) open(ctx context.Context, instance string) error {
	if err := c.names.find(ctx); err != nil {
		return err
	}
	if err := c.updateLinks(ctx); err != nil {
		return err
	}
	links := c.allLinks()
	if len(links) == 0 {
		return printable.Errorf("%w: the name server at %s knows no broker yet", broker.ErrUnavailable, strings.Join(c.config.NameServers, ", "))
	}
	var errs []error
	for _, l := range links {
		select {
		case <-l.tried:
		case <-ctx.Done():
			return printable.Errorf("%w: broker %s at %s: %w", broker.ErrUnavailable, l.name, l.address, context.Cause(ctx))
		}
		if err := l.down(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(links) {
		return errors.Join(errs...)
	}
	producer, err := c.newProducer(instance)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.producer = producer
	return nil
}

// begin claims a place among the work that Close waits for. Whoever gets true must call c.work.Done.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Add(1)
	return true
}

// Close stops what is still open: consumers and transactors as their own Stop and Close do, until ctx ends, then sends
// in flight, then the connections.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	consumers := slices.Collect(maps.Keys(c.consumers))
	transactors := slices.Collect(maps.Values(c.transactors))
	c.mu.Unlock()

	var errs []error
	for _, consumer := range consumers {
		errs = append(errs, consumer.Stop(ctx))
	}
	for _, t := range transactors {
		errs = append(errs, t.Close(ctx))
	}
	c.stop()
	settled := make(chan struct{})
	go func() {
		c.work.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("close: sends in flight: %w", context.Cause(ctx)))
	}
	if p := c.sender(); p != nil {
		errs = append(errs, p.Shutdown())
	}
	c.mu.Lock()
	links := slices.Collect(maps.Values(c.links))
	c.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	c.names.close()
	c.repeated.Flush()
	return errors.Join(errs...)
}

// Ping asks a name server and every broker that it lists. For a readiness probe.
func (c *Client) Ping(ctx context.Context) error {
	masters, err := c.names.masters(ctx)
	if err != nil {
		return err
	}
	if len(masters) == 0 {
		return fmt.Errorf("%w: the name server lists no broker", broker.ErrUnavailable)
	}
	errs := []error{c.waiting()}
	for name, address := range masters {
		l := c.link(name)
		if l == nil {
			errs = append(errs, printable.Errorf("%w: broker %s at %s: not connected yet", broker.ErrUnavailable, name, address))
			continue
		}
		errs = append(errs, l.register(ctx))
	}
	return errors.Join(errs...)
}

func (c *Client) link(name string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.links[name]
}

func (c *Client) allLinks() []*link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.links))
}

const (
	watchInterval = 10 * time.Second
	// listInterval lies between looks whether brokers list our consumers. A connection of the client that breaks alone, with
	// pulls on it that nobody fails, shows only there; else their answers are awaited for 30 s.
	listInterval = time.Second
	// A broker that the name servers no longer list may be restarting. After this long it is gone for good.
	forgetBroker = 10 * time.Minute
)

// watch keeps links and routes up to date.
func (c *Client) watch(ctx context.Context) {
	tick := time.NewTicker(listInterval)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n%int(watchInterval/listInterval) != 0 {
			c.watchConsumers(ctx, (*consumer).listed)
			continue
		}
		c.names.refresh()
		if err := c.updateLinks(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("no name server lists the brokers; those that are known are used, and the next look follows",
				"error", err, "after", watchInterval)
			continue
		}
		c.routes.refresh(ctx)
		c.watchConsumers(ctx, (*consumer).look)
	}
}

func (c *Client) updateLinks(ctx context.Context) error {
	masters, err := c.names.masters(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	var gone []*link
	if !c.closed {
		for name, l := range c.links {
			address, listed := masters[name]
			l.mu.Lock()
			forget := !listed && l.conn == nil && time.Since(l.since) > forgetBroker
			l.mu.Unlock()
			if listed && address != l.address || forget {
				gone = append(gone, l)
				delete(c.links, name)
			}
		}
		for name, address := range masters {
			if c.links[name] == nil {
				c.links[name] = c.newLink(name, address)
			}
		}
	}
	c.mu.Unlock()
	for _, l := range gone {
		l.close()
	}
	return nil
}

// missing tells whether a broker is down, or has come back so recently that the name servers may not list it yet.
func (c *Client) missing(name string) bool {
	l := c.link(name)
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == nil || time.Since(l.since) < time.Minute
}

func (c *Client) up(name string) bool {
	l := c.link(name)
	return l != nil && l.down() == nil
}

func (c *Client) linkUp(l *link, first bool) {
	c.log.Info("broker connected", "broker", l.name, "address", l.address)
	c.listener.BrokerUp(BrokerInfo{Broker: l.name, Address: l.address})
	if !first {
		c.renewConsumers(l.name)
	}
}

func (c *Client) linkDown(l *link, err error) {
	if errors.Is(err, remoting.ErrClosed) {
		return
	}
	c.log.Warn("connection to a broker lost; sends to it fail and its consumers stand still until it is made again",
		"broker", l.name, "address", l.address, "error", err)
	c.listener.BrokerDown(BrokerInfo{Broker: l.name, Address: l.address, Err: err})
}
