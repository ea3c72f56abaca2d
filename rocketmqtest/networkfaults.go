package rocketmqtest

import (
	"slices"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Outage is how connections fail while they are cut.
type Outage int

const (
	// Silent: nothing passes, either way, and nobody is told. In the end what was sent arrives, late, as TCP would send
	// it again.
	Silent Outage = iota
	// Dead is Silent, but in the end the connections are reset and what was sent on them is lost.
	Dead
	// Refused: connections are reset, and so are new ones.
	Refused
)

// partition is an outage of some clients.
type partition struct {
	clients func(client string) bool
	outage  Outage
	sessions     map[*session]struct{}
}

// Partition begins an outage between the server and the clients whose id matches; nil: all of them. The func returned ends it.
//
// A connection has no id, "", before its first heartbeat: a client that connects anew is cut when it says who it is; and
// connections to the name server never have one. The func is called with the server locked: it must not call its methods.
func (s *Server) Partition(clients func(client string) bool, outage Outage) (heal func()) {
	c := &partition{clients: clients, outage: outage, sessions: map[*session]struct{}{}}
	s.mu.Lock()
	s.partitions = append(s.partitions, c)
	s.mu.Unlock()
	s.updateSessions()
	return func() {
		s.mu.Lock()
		s.partitions = slices.DeleteFunc(s.partitions, func(other *partition) bool { return other == c })
		if outage == Dead {
			for hit := range c.sessions {
				hit.close()
			}
		}
		c.sessions = nil
		s.mu.Unlock()
		s.updateSessions()
	}
}

// Pause stops the broker as SIGSTOP does: connections stay, new ones are made, nothing is answered, and its clock stands.
// The name server goes on.
func (s *Server) Pause() { s.pause(true) }

// Resume ends a Pause. What came in, and what came due, is done now.
func (s *Server) Resume() { s.pause(false) }

func (s *Server) pause(paused bool) {
	s.mu.Lock()
	s.paused = paused
	s.runDue()
	s.wakeScheduler()
	s.changed()
	s.mu.Unlock()
	s.updateSessions()
}

// admit takes note of a new connection.
func (s *Server) admit(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.generation = c.endpoint.generation
}

// identify learns whose connection it is, before the heartbeat that says so is handled: a client that is cut isn't heard.
func (s *Server) identify(c *session, heartbeat *remoting.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.partitions) == 0 {
		return
	}
	if h, err := decodeHeartbeat(heartbeat.Body); err == nil {
		c.client = h.ClientID
		s.applyFaults(c)
	}
}

func (s *Server) updateSession(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applyFaults(c)
}

func (s *Server) updateSessions() {
	for _, e := range []*endpoint{s.nameServer, s.broker} {
		for _, c := range e.all() {
			s.updateSession(c)
		}
	}
}

// applyFaults shuts a connection's gate, opens it or resets the connection, as cuts and pauses want it. It is called with s.mu
// held.
func (s *Server) applyFaults(c *session) {
	shut := s.paused && c.endpoint == s.broker
	for _, cut := range s.partitions {
		if cut.clients != nil && !cut.clients(c.client) {
			continue
		}
		if cut.outage == Refused {
			c.close()
			return
		}
		cut.sessions[c] = struct{}{}
		shut = true
	}
	c.setShut(shut)
	s.changed()
}
