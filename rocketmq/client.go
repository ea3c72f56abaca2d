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

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/repeat"
)

// Client is a connection to one RocketMQ: its name servers and all of its brokers. It implements [broker.Sender],
// [broker.Scheduler], [broker.Subscriber] and [broker.TransactionProducerOpener]. A program needs one; open it with [Open]
// and close it with [Client.Close]. All methods are safe for concurrent use.
type Client struct {
	config      Config
	repeated    *repeat.Logger // counts repeated log lines; flushed by Close
	log         *slog.Logger   // writes to repeated
	listener    *Listener      // its functions are never nil, and guarded
	clientID    string         // under which brokers list the connections in brokerConns
	nameServers *nameServers
	asyncSlots  chan struct{} // one token for each send in flight of SendAsync
	routes      routes
	deferred    deferredCalls
	sends       sync.WaitGroup   // sends in flight of Own; Add only by beginSend
	work        background.Group // watch, deferred calls, sends and requests to brokers; use goWork to start more

	mu                   sync.Mutex
	closed               bool
	ensured              map[string]broker.Topic         // the topics of CreateTopics, by their names on the wire
	sender               sender                          // nil until a broker was reached
	brokerConns          map[string]*brokerConn          // by the broker's name
	inspected            map[string]map[string]bool      // the brokers of topics that were inspected, by their names on the wire
	transactionProducers map[string]*transactionProducer // by the producer group's name on the wire
	consumers            map[*consumer]struct{}
}

var (
	_ broker.Sender                    = (*Client)(nil)
	_ broker.Scheduler                 = (*Client)(nil)
	_ broker.Subscriber                = (*Client)(nil)
	_ broker.TransactionProducerOpener = (*Client)(nil)
)

var errClientClosed = fmt.Errorf("%w: client is closed", broker.ErrUnavailable)

// Open connects to a name server and to the brokers that it lists, and checks that a broker accepts the credentials. ctx
// bounds Open only.
//
// An invalid Config is a *rocketflow.FieldError, and so is a Config.TLS with which no name server or no broker can be connected to, such as
// one that doesn't trust their certificates, or none where they require TLS. If no broker can be reached the error matches
// broker.ErrUnavailable and names the address, unless Config.AwaitBroker is set: then Open succeeds, and the client connects as soon as a
// broker can be reached. If all brokers refuse the credentials the error matches broker.ErrUnauthorized. Where the cluster can't be asked
// for its brokers (see Facts.ListsBrokers) Open needs a name server only, and connects to brokers as the first topics are used.
func Open(ctx context.Context, config Config) (*Client, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	repeated := repeat.New(config.Logger, repeat.Config{})
	redirectClientLog(repeated.Logger)

	instance := uuid.NewString()
	c := &Client{
		config: config, repeated: repeated, log: repeated.Logger, listener: config.Listener.guarded(repeated.Logger),
		clientID:             config.Service + "-" + instance,
		nameServers:          newNameServers(config, repeated.Logger),
		asyncSlots:           make(chan struct{}, config.MaxAsync),
		deferred:             deferredCalls{added: make(chan struct{}, 1)},
		ensured:              map[string]broker.Topic{},
		brokerConns:          map[string]*brokerConn{},
		inspected:            map[string]map[string]bool{},
		transactionProducers: map[string]*transactionProducer{},
		consumers:            map[*consumer]struct{}{},
	}
	c.routes.nameServers, c.routes.mayReturn, c.routes.explainNotFound = c.nameServers, c.mayReturn, c.explainNotFound
	c.nameServers.newBrokers = c.connectToLearned
	err := c.work.Start(ctx, func(context.Context) error {
		connect := func(ctx context.Context) error { return c.connect(ctx, instance) }
		err := connect(ctx)
		if refused := c.tlsRefused(err); refused != nil {
			return refused
		}
		if err := c.orDefer("connect to RocketMQ", err, connect); err != nil {
			return err
		}
		c.work.Go(c.watch)
		c.work.Go(c.runDeferred)
		return nil
	})
	if err != nil {
		for _, b := range c.brokerConns {
			b.close()
		}
		c.nameServers.close()
		repeated.Flush()
		return nil, err
	}
	return c, nil
}

// connect finds a name server, connects to the brokers, and makes the sender once one broker has accepted the client.
func (c *Client) connect(ctx context.Context, instance string) error {
	if err := c.nameServers.find(ctx); err != nil {
		return err
	}
	if err := c.updateBrokerConns(ctx); err != nil {
		return err
	}
	conns := c.allBrokerConns()
	if len(conns) == 0 && c.config.Profile.Facts().ListsBrokers.Is {
		return printable.Errorf("%w: the name server at %s knows no broker yet", broker.ErrUnavailable, strings.Join(c.config.NameServers, ", "))
	}
	var errs []error
	for _, b := range conns {
		select {
		case <-b.tried:
		case <-ctx.Done():
			return printable.Errorf("%w: broker %s at %s: %w", broker.ErrUnavailable, b.name, b.address, context.Cause(ctx))
		}
		if err := b.down(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(conns) && len(conns) > 0 {
		return errors.Join(errs...)
	}
	var by sender = &ownSender{c}
	if c.config.Transport == ClientGo {
		var err error
		if by, err = c.newClientSender(instance); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sender = by
	return nil
}

// goWork runs fn in a goroutine that Close waits for. It returns false, and doesn't run fn, when the client is closed.
func (c *Client) goWork(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && c.work.Go(func(context.Context) { fn() })
}

// Close stops the consumers (as Consumer.Stop does) and closes the transaction producers (as TransactionProducer.Close does),
// waits for sends in flight, and closes the connections. When ctx ends first Close waits no longer and returns an error, and the
// connections are closed all the same. Later calls that need a broker fail with broker.ErrUnavailable; a second Close does nothing.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	consumers := slices.Collect(maps.Keys(c.consumers))
	transactionProducers := slices.Collect(maps.Values(c.transactionProducers))
	c.mu.Unlock()

	var errs []error
	for _, consumer := range consumers {
		errs = append(errs, consumer.Stop(ctx))
	}
	for _, t := range transactionProducers {
		errs = append(errs, t.Close(ctx))
	}
	if err := c.work.Stop(ctx); err != nil {
		errs = append(errs, fmt.Errorf("close: sends in flight: %w", err))
	}
	if err := background.Wait(ctx, &c.sends); err != nil {
		errs = append(errs, fmt.Errorf("close: sends in flight: %w", err))
	}
	if s := c.currentSender(); s != nil {
		errs = append(errs, s.close())
	}
	for _, b := range c.allBrokerConns() {
		b.close()
	}
	c.nameServers.close()
	c.repeated.Flush()
	return errors.Join(errs...)
}

// Profile returns the kind of RocketMQ that the client connects to.
func (c *Client) Profile() Profile { return c.config.Profile }

// Ping checks the connection for a readiness probe: it sends a request to a name server and to every broker that it lists. The
// error also lists the calls that wait for a broker (see Config.AwaitBroker), with the reason why each has not succeeded.
func (c *Client) Ping(ctx context.Context) error {
	masters, err := c.nameServers.masters(ctx)
	if err != nil {
		return err
	}
	errs := []error{c.deferred.err()}
	switch {
	case !c.config.Profile.Facts().ListsBrokers.Is:
		errs = append(errs, c.nameServers.ping(ctx))
	case len(masters) == 0:
		return fmt.Errorf("%w: the name server lists no broker", broker.ErrUnavailable)
	}
	for name, address := range masters {
		b := c.brokerConn(name)
		if b == nil {
			errs = append(errs, printable.Errorf("%w: broker %s at %s: not connected yet", broker.ErrUnavailable, name, address))
			continue
		}
		errs = append(errs, b.sendHeartbeat(ctx))
	}
	return errors.Join(errs...)
}

// brokerConn returns the connection to a broker, or nil if no name server has listed the broker.
func (c *Client) brokerConn(name string) *brokerConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.brokerConns[name]
}

func (c *Client) allBrokerConns() []*brokerConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.brokerConns))
}

// currentSender returns nil until a broker was reached.
func (c *Client) currentSender() sender {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sender
}

const (
	// watchInterval is the time between two updates of brokers, routes and grants.
	watchInterval = 10 * time.Second
	// listedInterval is the time between two checks that brokers list the consumers. When a connection of a consumer breaks
	// while pulls wait on it, only this check shows it: rocketmq-client-go waits 30 s for their responses.
	listedInterval = time.Second
	// recentlyBack is how long the name servers may not list the topics of a broker that has come back.
	recentlyBack = time.Minute
)

// watch keeps the connections, the routes and the consumers up to date until ctx ends.
func (c *Client) watch(ctx context.Context) {
	n := 0
	background.Loop{Clock: clock.System{}}.Every(ctx, listedInterval, func(ctx context.Context) {
		if n++; n%int(watchInterval/listedInterval) != 0 {
			if !c.allBrokersUp() { // one may have another address now, as after a switch to another master
				_ = c.updateBrokerConns(ctx) // its errors are logged by the regular update
				if !c.config.Profile.Facts().ListsBrokers.Is {
					c.routes.refresh(ctx) // they show the address
				}
			}
			c.checkConsumers(ctx, (*consumer).checkListed)
			return
		}
		c.nameServers.refresh()
		if err := c.updateBrokerConns(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("no name server returned the list of brokers; the client goes on with the brokers that it knows and tries again",
				keyError, err, keyRetryAfter, watchInterval)
			return
		}
		c.routes.refresh(ctx)
		c.checkConsumers(ctx, (*consumer).checkGrantsAndListed)
	})
}

// updateBrokerConns makes a connection to each master that a name server lists, and closes those whose broker has another
// address or was gone for Config.ForgetBrokerAfter.
func (c *Client) updateBrokerConns(ctx context.Context) error {
	masters, err := c.nameServers.masters(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	var gone []*brokerConn
	if !c.closed {
		for name, b := range c.brokerConns {
			address, listed := masters[name]
			forget := !listed && b.downFor(c.config.ForgetBrokerAfter)
			if listed && address != b.address || forget {
				gone = append(gone, b)
				delete(c.brokerConns, name)
			}
		}
		for name, address := range masters {
			if c.brokerConns[name] == nil {
				c.brokerConns[name] = c.newBrokerConn(c, name, address)
			}
			c.brokerConns[name].noteListed()
		}
	}
	var consumers []*consumer
	if len(gone) > 0 {
		consumers = slices.Collect(maps.Keys(c.consumers))
	}
	c.mu.Unlock()
	for _, k := range consumers {
		k.brokersChanged()
	}
	for _, b := range gone {
		b.close()
	}
	return nil
}

// mayReturn reports whether a broker whose queues the name servers don't list is down, or has come back so recently that they may not
// list them yet, or hasn't been listed at all since: it is one of the cluster that can't reach them. Queues of a broker that they do list
// were deleted.
func (c *Client) mayReturn(name string) bool {
	b := c.brokerConn(name)
	return b != nil && b.mayReturn(time.Now().Add(-recentlyBack))
}

func (c *Client) isUp(name string) bool {
	b := c.brokerConn(name)
	return b != nil && b.down() == nil
}

func (c *Client) anyBrokerUp() bool {
	return slices.ContainsFunc(c.allBrokerConns(), func(b *brokerConn) bool { return b.down() == nil })
}

func (c *Client) allBrokersUp() bool {
	return !slices.ContainsFunc(c.allBrokerConns(), func(b *brokerConn) bool { return b.down() != nil })
}

// explainNotFound adds to an error that says that a topic doesn't exist what can be done. While no broker is up the name
// servers know no topic: then it isn't known whether the topic exists, and the error matches broker.ErrUnavailable.
func (c *Client) explainNotFound(topic string, err error) error {
	switch {
	case !errors.Is(err, broker.ErrTopicNotFound):
		return err
	case c.config.Profile.Facts().ListsBrokers.Is && !c.anyBrokerUp():
		return printable.Errorf("%w: no broker is up: %v", broker.ErrUnavailable, err)
	case topic == remoting.DiscardTopic: // only a broker creates it
		return err
	case c.config.Profile.RefusesCreatingTopics() != nil:
		return printable.Errorf("%w: topic %s must be created by an operator of the RocketMQ: `rocketflow topics` prints what a service needs", err, topic)
	}
	return printable.Errorf("%w: create topic %s with `mqadmin updateTopic`, or set CreateTopics in the Config of package app or rocketflowfx", err, topic)
}

// onBrokerUp implements connUser.
func (c *Client) onBrokerUp(b *brokerConn, first bool) {
	c.log.Info("broker connected", keyBroker, b.name, keyAddress, b.address)
	c.listener.BrokerUp(BrokerInfo{Broker: b.name, Address: b.address})
	if !first && c.config.Transport == ClientGo { // those of Own go on by themselves
		c.restartConsumers(b.name)
	}
}

// onBrokerDown implements connUser.
func (c *Client) onBrokerDown(b *brokerConn, err error) {
	if errors.Is(err, remoting.ErrClosed) {
		return
	}
	c.log.Warn("connection to a broker lost; until it is connected again sends to it fail and its messages are not consumed; "+
		"if this lasts check the broker and the network", keyBroker, b.name, keyAddress, b.address, keyError, err)
	c.listener.BrokerDown(BrokerInfo{Broker: b.name, Address: b.address, Err: err})
}
