package rocketmqtest

import (
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

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Server is a name server and a broker. Its methods are safe for concurrent use.
type Server struct {
	config  Config
	clock   *Clock
	nameServer   *endpoint
	broker  *endpoint
	wake   chan struct{} // the agenda has a new first task
	closing chan struct{}
	running sync.WaitGroup // all goroutines but those of the endpoints
	hooks   atomic.Pointer[[]*hook]
	holds   holds

	// lifecycle is held while the broker or the name server is stopped or started; before mu.
	lifecycle sync.Mutex

	// mu guards what the broker holds, and is held while a request is handled: requests have an order.
	mu        sync.Mutex
	closed    bool
	stopped   bool // the broker is
	withdrawn bool // its routes were taken from the name server
	paused    bool
	partitions      []*partition
	watched   chan struct{} // closed by the next change; nil: nobody waits for it
	flushed   positions
	random    *rand.Rand
	schedule    schedule
	log       commitLog
	topics    map[string]*topic
	producers map[string][]*session // by group, in the order of their registration
	groups    map[string]*group     // of consumers
	delayLevels    []level               // of delayed messages
	wheel     wheel
	halves    halves
}

// New starts a server. Close it.
func New(config Config) (*Server, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config:    config,
		clock:     config.Clock,
		wake:     make(chan struct{}, 1),
		closing:   make(chan struct{}),
		random:    rand.New(rand.NewPCG(config.Seed, 0)),
		topics:    map[string]*topic{},
		producers: map[string][]*session{},
		groups:    map[string]*group{},
		delayLevels:    make([]level, len(config.DelayLevels)),
		wheel:     wheel{},
		halves:    newHalves(config.Clock.Now()),
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
	s.running.Go(s.runSchedule)
	return s, nil
}

// Addr is where the name server listens: what a client's configuration names.
func (s *Server) Addr() string { return s.nameServer.address.String() }

// BrokerAddr is where the broker listens; clients learn it from the name server.
func (s *Server) BrokerAddr() string { return s.broker.address.String() }

// Close ends all connections and waits for everything that the server has started, requests that are held back among
// it: those are lost. Further calls do nothing but wait too. A hook must not call it.
func (s *Server) Close() {
	s.lifecycle.Lock()
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.changed()
	s.mu.Unlock()
	if first {
		close(s.closing)
	}
	s.nameServer.stop()
	s.broker.stop()
	s.lifecycle.Unlock()
	s.nameServer.running.Wait()
	s.broker.running.Wait()
	s.running.Wait()
}

// endpoint is a listener and its connections.
type endpoint struct {
	server   *Server
	handlers map[remoting.Code]handler
	address  netip.AddrPort // fixed by the first listen

	generation int // counts the stops; guarded by Server.mu

	mu       sync.Mutex
	listener net.Listener // nil: closed
	sessions map[*session]struct{}
	running  sync.WaitGroup // the accepting goroutine and the sessions
}

// listen begins to accept connections at the address, or again at that of the first time.
func (e *endpoint) listen(address string) error {
	first := !e.address.IsValid()
	if !first {
		address = e.address.String()
	}
	l, err := net.Listen("tcp4", address)
	// Where this program is just starting another, that holds the old listener until it runs.
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
				return // only stop makes Accept fail for good; a passing failure of a test's machine may end the test
			}
			e.serve(l, nc)
		}
	})
	return nil
}

func (e *endpoint) serve(l net.Listener, nc net.Conn) {
	c := newSession(e, nc)
	// The generation is read before the listener is seen to be the current one: a stop in between is noticed either way.
	e.server.admit(c)
	e.mu.Lock()
	if e.listener != l {
		e.mu.Unlock()
		nc.Close()
		return
	}
	e.sessions[c] = struct{}{}
	e.mu.Unlock()
	e.server.updateSession(c) // cuts and pauses since
	e.running.Go(c.writeAll)
	e.running.Go(func() {
		c.readAll()
		e.mu.Lock()
		delete(e.sessions, c)
		e.mu.Unlock()
		e.server.forget(c)
	})
}

// stop ends the listener and all connections. Their goroutines follow.
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

// all lists the connections.
func (e *endpoint) all() []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.sessions))
}
