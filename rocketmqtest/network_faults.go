package rocketmqtest

import (
	"slices"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Outage is how connections behave during a network partition.
type Outage int

const (
	// Silent means that no data passes in either direction and connections stay open. When the partition heals, data that was
	// sent meanwhile arrives late, as TCP retransmits it.
	Silent Outage = iota
	// Dead is like Silent, but when the partition heals, connections are reset and what was sent on them is lost.
	Dead
	// Refused means that connections are reset at once, new ones too.
	Refused
)

// partition separates some clients from the server.
type partition struct {
	clients  func(client string) bool
	outage   Outage
	sessions map[*session]struct{}
}

// Partition starts a network partition between the server and the clients whose id matches; a nil function matches all.
// The returned function heals it.
//
// Before its first heartbeat a connection has the empty id, so a client that connects anew is separated when its first
// heartbeat arrives. Connections to the name server always have the empty id. The function is called with the server
// locked: it must not call the server's methods.
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

// Pause freezes the broker as SIGSTOP does: connections stay open and new ones are accepted, but nothing is read or written
// and no timer fires. The name server continues.
func (s *Server) Pause() { s.pause(true) }

// Resume ends a Pause: requests that arrived and timers that fell due meanwhile are handled now.
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

// admit records with which generation of its endpoint a connection was accepted.
func (s *Server) admit(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.generation = c.endpoint.generation
}

// identify sets the client id of a connection before its heartbeat is handled, so that a partition can stop the heartbeat.
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

// updateSession applies partitions and pauses to a connection.
func (s *Server) updateSession(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applyFaults(c)
}

func (s *Server) updateSessions() {
	for _, e := range s.endpoints() {
		for _, c := range e.all() {
			s.updateSession(c)
		}
	}
}

// applyFaults opens or shuts the gate of a connection, or resets it, according to partitions and pauses. It is called with
// s.mu held.
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
