package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	nameServerTimeout = 3 * time.Second
	// troubledTimeout bounds the wait for a name server that didn't answer the last time, where there is no other to ask.
	troubledTimeout = time.Second
	// hedgeDelay is how long one name server is waited for alone. Then the next is asked, too.
	hedgeDelay = 250 * time.Millisecond
)

// nameServers asks the name servers. One that doesn't answer costs the others nothing: it is asked last, the next is asked
// before it was given up, and the client under us isn't told of it, since that one asks all in turn and waits 6 s for each.
type nameServers struct {
	configured []string // host:port
	log        *slog.Logger
	life       context.Context // of all that is asked; ends with close
	end        context.CancelFunc
	work       sync.WaitGroup // Add only under mu while not closed

	mu        sync.Mutex
	closed    bool
	looking   bool                // a refresh is under way
	found     map[string][]string // ip:port by configured address, from the last look-up that succeeded
	lost      map[string]error    // why the last look-up failed, by configured address
	servers   []*nameServer       // in the order of configured
	preferred *nameServer         // the one that answered last
}

func newNameServers(addresses []string, log *slog.Logger) *nameServers {
	n := &nameServers{configured: addresses, log: log, found: map[string][]string{}, lost: map[string]error{}}
	n.life, n.end = context.WithCancel(context.Background())
	return n
}

// state is what is known of a name server. The order is the one in which they are asked.
type state int

const (
	answering state = iota
	untried
	troubled
)

// nameServer is one address with the connection to it.
type nameServer struct {
	address string
	state   state // guarded by nameServers.mu

	slot chan struct{}  // holds one token while conn is being used or made; a mutex whose wait can end
	conn *remoting.Conn // nil until there is one
}

// connection returns the connection, making one where there is none.
func (s *nameServer) connection(ctx context.Context) (*remoting.Conn, error) {
	select {
	case s.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, printable.Errorf("%w: connect to %s: %w", broker.ErrUnavailable, s.address, context.Cause(ctx))
	}
	defer func() { <-s.slot }()
	if s.conn != nil && s.conn.Err() == nil {
		return s.conn, nil
	}
	// A name server knows no users: what is signed for a broker need not be shown to it.
	conn, err := remoting.Dial(ctx, s.address, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return conn, nil
}

// drop closes a connection, so that the next request makes another. nil: whichever there is.
func (s *nameServer) drop(conn *remoting.Conn) {
	s.slot <- struct{}{}
	defer func() { <-s.slot }()
	if s.conn != nil && (conn == nil || s.conn == conn) {
		s.conn.Close()
		s.conn = nil
	}
}

// call asks the name servers, in the order of what is known of them, until one answers. Each is asked at most once. A
// server's refusal is an answer.
func (n *nameServers) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	servers, err := n.order()
	if err != nil {
		return nil, err
	}
	timeout, alone := nameServerTimeout, hedgeDelay
	if servers[0].state == troubled {
		timeout, alone = troubledTimeout, 0 // all of them
	}
	answers := make(chan answer, len(servers))
	var waiting []*nameServer
	next := func() {
		if len(servers) > 0 {
			s := servers[0].nameServer
			servers, waiting = servers[1:], append(waiting, s)
			n.begin(func() { answers <- n.ask(s, request, timeout) }, func() { answers <- answer{from: s, err: errClientClosed} })
		}
	}
	next()
	hedge := time.NewTimer(alone)
	defer hedge.Stop()
	var errs []error
	for len(waiting) > 0 {
		select {
		case a := <-answers:
			waiting = slices.DeleteFunc(waiting, func(s *nameServer) bool { return s == a.from })
			if a.command != nil {
				n.answered(a.from, waiting)
				return a.command, a.err
			}
			errs = append(errs, a.err)
			next()
		case <-hedge.C:
			if next(); len(servers) > 0 {
				hedge.Reset(alone)
			}
		case <-ctx.Done():
			return nil, printable.Errorf("%w: name server %s: no answer: %w", broker.ErrUnavailable, waiting[0].address, context.Cause(ctx))
		}
	}
	return nil, fmt.Errorf("name server: %w", errors.Join(errs...))
}

// begin runs f in the background, or otherwise if n is closed.
func (n *nameServers) begin(f, otherwise func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		otherwise()
		return
	}
	n.work.Go(f)
}

// answer is what a name server said: with a command, that may be a refusal, or nothing.
type answer struct {
	from    *nameServer
	command *remoting.Command
	err     error
}

// ask waits for the answer of one server, also when whoever wanted it has gone: what is learned of the server is kept.
func (n *nameServers) ask(s *nameServer, request *remoting.Command, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(n.life, timeout)
	defer cancel()
	conn, err := s.connection(ctx)
	if err == nil {
		var command *remoting.Command
		if command, err = conn.Call(ctx, request); command != nil {
			n.note(s, answering, nil)
			return answer{s, command, err}
		}
		s.drop(conn)
	}
	if n.life.Err() == nil {
		n.note(s, troubled, err)
	}
	return answer{s, nil, err}
}

// answered notes who answered, and before whom.
func (n *nameServers) answered(s *nameServer, overtaken []*nameServer) {
	n.mu.Lock()
	n.preferred = s
	n.mu.Unlock()
	for _, slow := range overtaken {
		n.note(slow, troubled, errSlow)
	}
}

var errSlow = errors.New("another was faster")

func (n *nameServers) note(s *nameServer, now state, err error) {
	n.mu.Lock()
	was := s.state
	s.state = now
	n.mu.Unlock()
	switch {
	case was != troubled && now == troubled:
		n.log.Warn("name server doesn't answer, it is asked last", "address", s.address, "error", err)
	case was == troubled && now == answering:
		n.log.Info("name server answers again", "address", s.address)
	}
}

// standing is a server with what was known of it at one moment.
type standing struct {
	*nameServer
	state state
}

// order returns the servers in the order in which they should be asked.
func (n *nameServers) order() ([]standing, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClientClosed
	}
	if len(n.servers) == 0 {
		errs := []error{broker.ErrUnavailable}
		for _, address := range n.configured {
			errs = append(errs, n.lost[address])
		}
		return nil, fmt.Errorf("name server: %w", errors.Join(errs...))
	}
	var all []standing
	if n.preferred != nil {
		all = append(all, standing{n.preferred, n.preferred.state})
	}
	for _, s := range n.servers {
		if s != n.preferred {
			all = append(all, standing{s, s.state})
		}
	}
	slices.SortStableFunc(all, func(a, b standing) int { return int(a.state - b.state) })
	return all, nil
}

// route returns the route of a topic, or broker.ErrTopicNotFound.
func (n *nameServers) route(ctx context.Context, topic string) (remoting.Route, error) {
	var route remoting.Route
	answer, err := n.call(ctx, routeOf(topic))
	if err != nil {
		return route, printable.Errorf("route of topic %s: %w", topic, err)
	}
	if err := remoting.DecodeJSON(answer.Body, &route); err != nil {
		return route, printable.Errorf("route of topic %s: %w", topic, err)
	}
	return route, nil
}

func routeOf(topic string) *remoting.Command {
	return &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"}}
}

// masters returns the addresses of all masters by name.
func (n *nameServers) masters(ctx context.Context) (map[string]string, error) {
	answer, err := n.call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	var cluster remoting.Cluster
	if err := remoting.DecodeJSON(answer.Body, &cluster); err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	masters := map[string]string{}
	for name, b := range cluster.Brokers {
		if address := b.Master(); address != "" {
			masters[name] = address
		}
	}
	return masters, nil
}

// Resolve gives the client under us the name servers that answer as ip:port, the only form that it takes; all, if none does.
// The client calls it when it is made, and every two minutes.
func (n *nameServers) Resolve() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var well, all []string
	for _, s := range n.servers {
		all = append(all, s.address)
		if s.state == answering {
			well = append(well, s.address)
		}
	}
	if len(well) > 0 {
		return well
	}
	return all
}

// Description implements the client's NsResolver.
func (n *nameServers) Description() string {
	return fmt.Sprintf("rocketflow's name servers %v", n.configured)
}

func (n *nameServers) close() {
	n.mu.Lock()
	n.closed = true
	servers := slices.Clone(n.servers)
	n.mu.Unlock()
	n.end()
	n.work.Wait()
	for _, s := range servers {
		s.drop(nil)
	}
}
