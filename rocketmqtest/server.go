package rocketmqtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Server is a name server and a broker in this process. Its methods are safe for concurrent use.
type Server struct {
	config     Config
	clock      *Clock
	nameServer *endpoint
	broker     *endpoint
	proxy      *endpoint        // nil without Config.Proxy
	wake       chan struct{}    // the schedule has a new first task
	work       background.Group // all goroutines except those of the endpoints
	hooks      atomic.Pointer[[]*hook]
	holds      holds

	// lifecycle is held while the broker or the name server is stopped or started. It is locked before mu.
	lifecycle sync.Mutex

	// mu guards the broker's state. It is held while a request is handled, so requests are handled one at a time.
	mu              sync.Mutex
	closed          bool
	stopped         bool // the broker is stopped
	withdrawn       bool // its routes are removed from the name server
	paused          bool
	partitions      []*partition
	watched         chan struct{} // closed by the next change; nil while Changed was not called
	flushed         positions
	random          *rand.Rand
	schedule        schedule
	log             commitLog
	topics          map[string]*topic
	producers       map[string][]*session // by group, in the order of their registration
	groups          map[string]*group     // of consumers
	changedSettings map[string]string     // settings that requests have changed and that aren't in config
	delayLevels     []level               // of delayed messages
	wheel           wheel
	halves          halves
	proxyChecks     map[string]struct{} // transaction ids of half messages that were checked through the proxy
}

// New starts a server. Call Close when it is no longer needed; in a test use [RunT], which does so.
func New(config Config) (*Server, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config:          config,
		clock:           config.Clock,
		wake:            make(chan struct{}, 1),
		random:          rand.New(rand.NewPCG(config.Seed, 0)),
		topics:          map[string]*topic{},
		producers:       map[string][]*session{},
		groups:          map[string]*group{},
		changedSettings: map[string]string{},
		delayLevels:     make([]level, len(config.DelayLevels)),
		wheel:           wheel{},
		halves:          newHalves(config.Clock.Now()),
		proxyChecks:     map[string]struct{}{},
	}
	s.makeSystemTopics()
	s.flush()
	s.nameServer = &endpoint{server: s, handlers: nameServerHandlers, sessions: map[*session]struct{}{}}
	s.broker = &endpoint{server: s, handlers: brokerHandlers, sessions: map[*session]struct{}{}}
	if err := s.nameServer.listen(config.Addr); err != nil {
		return nil, fmt.Errorf("rocketmqtest: name server: %w", err)
	}
	if err := s.broker.listen(config.BrokerAddr); err != nil {
		s.nameServer.stop()
		s.nameServer.running.Wait()
		return nil, fmt.Errorf("rocketmqtest: broker: %w", err)
	}
	if config.Proxy {
		s.proxy = &endpoint{server: s, handlers: proxyHandlers, sessions: map[*session]struct{}{}}
		if err := s.proxy.listen("127.0.0.1:0"); err != nil {
			s.nameServer.stop()
			s.broker.stop()
			s.nameServer.running.Wait()
			s.broker.running.Wait()
			return nil, fmt.Errorf("rocketmqtest: proxy: %w", err)
		}
	}
	err := s.work.Start(context.Background(), func(context.Context) error {
		s.work.Go(s.runSchedule)
		return nil
	})
	return s, err
}

// Addr returns the address of the name server, for the configuration of clients.
func (s *Server) Addr() string { return s.nameServer.address.String() }

// BrokerAddr returns the address of the broker. Clients get it from the name server.
func (s *Server) BrokerAddr() string { return s.broker.address.String() }

// ProxyAddr returns the address of the proxy, which clients use instead of Addr, or "" without Config.Proxy.
func (s *Server) ProxyAddr() string {
	if s.proxy == nil {
		return ""
	}
	return s.proxy.address.String()
}

// Close ends all connections and waits for all goroutines of the server. Requests that a hook holds back are lost. A second
// call waits too. A hook of Control must not call Close, which would wait for it.
func (s *Server) Close() {
	s.lifecycle.Lock()
	s.mu.Lock()
	s.closed = true
	s.changed()
	s.mu.Unlock()
	for _, e := range s.endpoints() {
		e.stop()
	}
	s.lifecycle.Unlock()
	for _, e := range s.endpoints() {
		e.running.Wait()
	}
	_ = s.work.Stop(context.Background()) // last: held requests end with their connections
}

// endpoints returns the name server, the broker, and the proxy if there is one.
func (s *Server) endpoints() []*endpoint {
	all := []*endpoint{s.nameServer, s.broker}
	if s.proxy != nil {
		all = append(all, s.proxy)
	}
	return all
}

// endpoint is a listener with its connections: the name server's, the broker's or the proxy's.
type endpoint struct {
	server   *Server
	handlers map[remoting.Code]handler
	address  netip.AddrPort // fixed by the first listen

	generation int // number of stops; guarded by Server.mu

	mu       sync.Mutex
	listener net.Listener // nil: closed
	sessions map[*session]struct{}
	running  sync.WaitGroup // the accepting goroutine and the sessions
}

// listen starts to accept connections at the address. A further call uses the address of the first.
func (e *endpoint) listen(address string) error {
	first := !e.address.IsValid()
	if !first {
		address = e.address.String()
	}
	l, err := net.Listen("tcp4", address)
	// A child process that is just being forked holds a copy of the old listener until it execs.
	for giveUp := time.Now().Add(5 * time.Second); !first && errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(giveUp); {
		time.Sleep(time.Millisecond)
		l, err = net.Listen("tcp4", address)
	}
	if err != nil {
		return err
	}
	if first {
		e.address = l.Addr().(*net.TCPAddr).AddrPort()
	}
	e.mu.Lock()
	e.listener = l
	e.mu.Unlock()
	e.running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return // stop was called; a transient failure is not worth a retry in a test
			}
			e.serve(l, nc)
		}
	})
	return nil
}

// serve starts the goroutines of a connection.
func (e *endpoint) serve(l net.Listener, nc net.Conn) {
	c := newSession(e, nc)
	// The generation is read before the listener is compared, so that a stop in between is noticed either way.
	e.server.admit(c)
	e.mu.Lock()
	if e.listener != l {
		e.mu.Unlock()
		nc.Close()
		return
	}
	e.sessions[c] = struct{}{}
	e.mu.Unlock()
	e.server.updateSession(c) // applies partitions and pauses that began since
	e.running.Go(c.writeAll)
	e.running.Go(func() {
		c.readAll()
		e.mu.Lock()
		delete(e.sessions, c)
		e.mu.Unlock()
		e.server.forget(c)
	})
}

// stop closes the listener and all connections. Their goroutines end by themselves.
func (e *endpoint) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.listener != nil {
		e.listener.Close()
		e.listener = nil
	}
	for c := range e.sessions {
		c.close()
	}
}

// all returns the connections.
func (e *endpoint) all() []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.sessions))
}
