package rocketmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/valid"
)

const (
	nameServerTimeout = 3 * time.Second
	// failingTimeout bounds the wait for name servers when the last request to each of them failed.
	failingTimeout = time.Second
	// hedgeDelay is how long a request waits for one server before it is also sent to the next.
	hedgeDelay = 250 * time.Millisecond
)

// nameServers sends requests to the name servers of one RocketMQ. A server that doesn't respond delays no request by more than
// hedgeDelay: the next server gets the request, too, and later requests go to the failing server last. It also isn't given to
// rocketmq-client-go, which sends requests to all of its servers in turn and waits 6 s for each.
type nameServers struct {
	configured []string // host:port
	tls        *tls.Config
	log        *slog.Logger
	work       background.Group // requests; stopped by close
	lookUpHost func(ctx context.Context, host string) (addresses []string, err error)

	// Where the cluster can't be asked for its brokers, they are those of the routes.
	listsBrokers bool
	credentials  remoting.Credentials      // of requests; none if the cluster lists its brokers: then these are name servers, which have no users
	forgetAfter  time.Duration             // see Config.ForgetBrokerAfter
	newBrokers   func(ctx context.Context) // is called when a route has shown a broker or an address that wasn't known

	mu         sync.Mutex
	learned    map[string]learnedBroker // by name; nil if listsBrokers
	refreshing bool                     // a refresh is in progress
	found      map[string][]string      // ip:port by configured address, from the last DNS lookup that succeeded
	lookupErrs map[string]error         // of the last DNS lookup, by configured address
	servers    []*nameServer            // in the order of configured
	preferred  *nameServer              // the server that responded last
}

func newNameServers(config Config, log *slog.Logger) *nameServers {
	n := &nameServers{
		configured: config.NameServers, tls: config.TLS, log: log, found: map[string][]string{}, lookupErrs: map[string]error{},
		listsBrokers: config.Profile.Facts().ListsBrokers.Is, newBrokers: func(context.Context) {},
		forgetAfter: config.ForgetBrokerAfter, lookUpHost: config.lookUpHost,
	}
	if !n.listsBrokers {
		n.learned, n.credentials = map[string]learnedBroker{}, config.credentials()
	}
	if n.lookUpHost == nil {
		n.lookUpHost = net.DefaultResolver.LookupHost
	}
	_ = n.work.Start(context.Background(), func(context.Context) error { return nil }) // can't fail
	return n
}

// serverState is what the last request to a name server has shown. Requests go to servers in the order of these constants.
type serverState int

const (
	responding serverState = iota
	untried
	failing
)

// nameServer is one address with the connection to it.
type nameServer struct {
	address string
	tls     *tls.Config
	state   serverState // guarded by nameServers.mu

	connSlot chan struct{}  // a mutex for conn whose wait can end: holds one token while conn is used or made
	conn     *remoting.Conn // nil until there is one
}

// connection returns the connection, and makes one if there is none.
func (s *nameServer) connection(ctx context.Context, credentials remoting.Credentials) (*remoting.Conn, error) {
	select {
	case s.connSlot <- struct{}{}:
	case <-ctx.Done():
		return nil, printable.Errorf("%w: connect to %s: %w", broker.ErrUnavailable, s.address, context.Cause(ctx))
	}
	defer func() { <-s.connSlot }()
	if s.conn != nil && s.conn.Err() == nil {
		return s.conn, nil
	}
	conn, err := remoting.DialTLS(ctx, s.address, s.tls, credentials, nil)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return conn, nil
}

// drop closes a connection, so that the next request makes another. nil means whichever there is.
func (s *nameServer) drop(conn *remoting.Conn) {
	s.connSlot <- struct{}{}
	defer func() { <-s.connSlot }()
	if s.conn != nil && (conn == nil || s.conn == conn) {
		s.conn.Close()
		s.conn = nil
	}
}

// call sends a request to the servers, by state, until one responds. A server gets it at most once. A response may be a refusal.
func (n *nameServers) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	servers, err := n.ranked()
	if err != nil {
		return nil, err
	}
	timeout, delay := nameServerTimeout, hedgeDelay
	if servers[0].state == failing { // then all are
		timeout, delay = failingTimeout, 0
	}
	responses := make(chan response, len(servers))
	var waiting []*nameServer
	next := func() {
		if len(servers) > 0 {
			s := servers[0].nameServer
			servers, waiting = servers[1:], append(waiting, s)
			if !n.work.Go(func(work context.Context) { responses <- n.callOne(work, s, request, timeout) }) {
				responses <- response{from: s, err: errClientClosed}
			}
		}
	}
	next()
	hedge := time.NewTimer(delay)
	defer hedge.Stop()
	var errs []error
	for len(waiting) > 0 {
		select {
		case r := <-responses:
			waiting = slices.DeleteFunc(waiting, func(s *nameServer) bool { return s == r.from })
			if r.command != nil {
				n.prefer(r.from, waiting)
				return r.command, r.err
			}
			errs = append(errs, r.err)
			next()
		case <-hedge.C:
			if next(); len(servers) > 0 {
				hedge.Reset(delay)
			}
		case <-ctx.Done():
			return nil, printable.Errorf("%w: name server %s: no response: %w", broker.ErrUnavailable, waiting[0].address, context.Cause(ctx))
		}
	}
	return nil, fmt.Errorf("name server: %w", errors.Join(errs...))
}

// response is the result of a request to one server. Without a command the server didn't respond; with one, err is its refusal.
type response struct {
	from    *nameServer
	command *remoting.Command
	err     error
}

// callOne sends a request to one server and waits for the response, also when the caller of call has gone: what it shows of the
// server is recorded.
func (n *nameServers) callOne(work context.Context, s *nameServer, request *remoting.Command, timeout time.Duration) response {
	ctx, cancel := context.WithTimeout(work, timeout)
	defer cancel()
	conn, err := s.connection(ctx, n.credentials)
	if err == nil {
		var command *remoting.Command
		if command, err = conn.Call(ctx, request); command != nil {
			n.setState(s, responding, nil)
			return response{s, command, err}
		}
		err = conn.Explain(ctx, err)
		s.drop(conn)
	}
	if work.Err() == nil {
		n.setState(s, failing, err)
	}
	return response{s, nil, err}
}

// prefer records which server responded, and that the servers in slower had not responded by then.
func (n *nameServers) prefer(s *nameServer, slower []*nameServer) {
	n.mu.Lock()
	n.preferred = s
	n.mu.Unlock()
	for _, slow := range slower {
		n.setState(slow, failing, errSlower)
	}
}

var errSlower = errors.New("another name server responded first")

func (n *nameServers) setState(s *nameServer, now serverState, err error) {
	n.mu.Lock()
	was := s.state
	s.state = now
	n.mu.Unlock()
	switch {
	case was != failing && now == failing:
		n.log.Warn("name server doesn't respond; requests go to it last until it does", keyAddress, s.address, keyError, err)
	case was == failing && now == responding:
		n.log.Info("name server responds again", keyAddress, s.address)
	}
}

// rankedServer is a server with its state at one moment.
type rankedServer struct {
	*nameServer
	state serverState
}

// ranked returns the servers in the order in which they get a request.
func (n *nameServers) ranked() ([]rankedServer, error) {
	if !n.work.Running() {
		return nil, errClientClosed
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.servers) == 0 {
		errs := []error{broker.ErrUnavailable}
		for _, address := range n.configured {
			errs = append(errs, n.lookupErrs[address])
		}
		return nil, fmt.Errorf("name server: %w", errors.Join(errs...))
	}
	var all []rankedServer
	if n.preferred != nil {
		all = append(all, rankedServer{n.preferred, n.preferred.state})
	}
	for _, s := range n.servers {
		if s != n.preferred {
			all = append(all, rankedServer{s, s.state})
		}
	}
	slices.SortStableFunc(all, func(a, b rankedServer) int { return int(a.state - b.state) })
	return all, nil
}

// failing reports whether the last request to each server failed.
func (n *nameServers) failing() bool {
	servers, err := n.ranked()
	return err != nil || servers[0].state == failing
}

// route returns the route of a topic. If the topic doesn't exist the error matches broker.ErrTopicNotFound.
func (n *nameServers) route(ctx context.Context, topic string) (remoting.Route, error) {
	r, err := n.call(ctx, routeOf(topic))
	if err != nil {
		return remoting.Route{}, printable.Errorf("route of topic %s: %w", topic, err)
	}
	route, err := remoting.DecodeRoute(r.Body)
	if err != nil {
		return route, printable.Errorf("route of topic %s: %w: %w", topic, broker.ErrUnavailable, err)
	}
	if n.learn(route) {
		n.newBrokers(ctx)
	}
	return route, nil
}

func routeOf(topic string) *remoting.Command {
	return &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"}}
}

// replicated returns the names of the brokers that have slaves, or other copies of which one is the master.
func (n *nameServers) replicated(ctx context.Context) (map[string]bool, error) {
	cluster, err := n.cluster(ctx)
	if err != nil {
		return nil, err
	}
	replicated := map[string]bool{}
	for name, b := range cluster.Brokers {
		replicated[name] = len(b.Addresses) > 1
	}
	return replicated, nil
}

// masters returns the addresses of all brokers' masters by the broker's name.
func (n *nameServers) masters(ctx context.Context) (map[string]string, error) {
	if !n.listsBrokers {
		return n.learnedMasters(), nil
	}
	cluster, err := n.cluster(ctx)
	if err != nil {
		return nil, err
	}
	masters := map[string]string{}
	for name, b := range cluster.Brokers {
		if address := b.Master(); address != "" {
			masters[name] = address
		}
	}
	return masters, nil
}

// cluster returns all brokers, by name.
func (n *nameServers) cluster(ctx context.Context) (cluster remoting.Cluster, err error) {
	r, err := n.call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	var refused *remoting.ResponseError
	if errors.As(err, &refused) && refused.Code == remoting.NotSupported {
		return cluster, valid.Wrap("rocketmq.Config.Profile", "the servers don't list the brokers, as a proxy or a cloud: set the profile of what NameServers lead to", err)
	}
	if err != nil {
		return cluster, fmt.Errorf("list brokers: %w", err)
	}
	if cluster, err = remoting.DecodeCluster(r.Body); err != nil {
		return cluster, fmt.Errorf("list brokers: %w: %w", broker.ErrUnavailable, err)
	}
	return cluster, nil
}

// Resolve implements the NsResolver of rocketmq-client-go, which calls it when a producer or consumer is made and every two minutes. It
// returns the servers that respond, or all if none does, as ip:port: the client takes no host names.
func (n *nameServers) Resolve() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var usable, all []string
	for _, s := range n.servers {
		all = append(all, s.address)
		if s.state == responding {
			usable = append(usable, s.address)
		}
	}
	if len(usable) > 0 {
		return usable
	}
	return all
}

// Description implements the NsResolver of rocketmq-client-go.
func (n *nameServers) Description() string {
	return fmt.Sprintf("rocketflow's name servers %v", n.configured)
}

// close ends requests in progress and closes the connections. Later calls fail with errClientClosed.
func (n *nameServers) close() {
	_ = n.work.Stop(context.Background()) // ends only when all has ended
	n.mu.Lock()
	servers := slices.Clone(n.servers)
	n.mu.Unlock()
	for _, s := range servers {
		s.drop(nil)
	}
}
