package rocketmqtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Loss is what a broker loses when it stops. Connections, memberships and queue locks go in any case; topics and half
// messages, timers and offsets stay.
type Loss int

const (
	// LoseNothing else: a shutdown as it should be.
	LoseNothing Loss = iota
	// LoseMarkers that transactions have ended, those that aren't written yet: as a real broker in an orderly shutdown.
	// Its transactions are checked though they have ended.
	LoseMarkers
	// LoseMemory is a kill -9: markers, and since the last flush (Config.OffsetFlushInterval), offsets of groups and positions of timers
	// and delayed messages, some of which are delivered twice.
	LoseMemory
	// LoseUnflushed is a power failure: in addition the messages of the last Config.FlushInterval, acknowledged or not.
	// What [Server.Since] returned may be gone, and its positions are used again.
	LoseUnflushed
)

// positions is what a broker that is killed finds again of its positions in queues.
type positions struct {
	at      time.Time
	offsets map[*group]map[*queue]int64
	levels  []int64
	halves  int64
}

// flush writes the positions down, now and then.
func (s *Server) flush() {
	now := s.clock.Now()
	p := positions{at: now, offsets: make(map[*group]map[*queue]int64, len(s.groups)), halves: s.halves.next}
	for _, g := range s.groups {
		p.offsets[g] = maps.Clone(g.offsets)
	}
	for _, l := range s.delayLevels {
		p.levels = append(p.levels, l.next)
	}
	s.flushed = p
	s.at(now.Add(s.config.OffsetFlushInterval), s.flush)
}

// Stop stops the broker, which loses something. The name server goes on; it keeps the routes of a broker that was killed.
// Stopping a stopped broker does nothing.
func (s *Server) Stop(loss Loss) {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	if s.stopped || s.closed {
		s.mu.Unlock()
		return
	}
	s.stopped, s.withdrawn = true, loss < LoseMemory
	s.broker.generation++
	s.lose(loss)
	s.changed()
	s.mu.Unlock()
	s.broker.stop()
}

// Start starts the broker again, at its address. What came due in the meantime is done.
func (s *Server) Start() error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("rocketmqtest: start: the server is closed")
	}
	if !s.stopped {
		s.mu.Unlock()
		return nil
	}
	s.stopped, s.withdrawn = false, false
	s.restore()
	s.mu.Unlock()
	if err := s.broker.listen(""); err != nil {
		s.mu.Lock()
		s.stopped = true
		s.mu.Unlock()
		return fmt.Errorf("rocketmqtest: start the broker: %w", err)
	}
	return nil
}

// Restart is Stop and Start.
func (s *Server) Restart(loss Loss) error {
	s.Stop(loss)
	return s.Start()
}

// StopNameServer stops the name server; the broker goes on.
func (s *Server) StopNameServer() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	s.nameServer.generation++
	s.mu.Unlock()
	s.nameServer.stop()
}

// StartNameServer starts the name server again, at its address. It knows the broker at once.
func (s *Server) StartNameServer() error {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	s.nameServer.mu.Lock()
	listens := s.nameServer.listener != nil
	s.nameServer.mu.Unlock()
	switch {
	case closed:
		return errors.New("rocketmqtest: start the name server: the server is closed")
	case listens:
		return nil
	}
	if err := s.nameServer.listen(""); err != nil {
		return fmt.Errorf("rocketmqtest: start the name server: %w", err)
	}
	return nil
}

// lose forgets what a stop loses. It is called with s.mu held.
func (s *Server) lose(loss Loss) {
	for _, t := range s.topics {
		for _, q := range t.queues {
			for p := range q.polls {
				p.timer.Stop()
			}
			clear(q.polls)
		}
	}
	clear(s.producers)
	for _, g := range s.groups {
		g.members = nil
		clear(g.locks)
	}
	if loss >= LoseMarkers {
		s.dropVolatileMarkers()
	}
	if loss >= LoseUnflushed {
		s.truncate(s.clock.Now().Add(-s.config.FlushInterval))
	}
	if loss >= LoseMemory {
		for _, g := range s.groups {
			g.offsets = maps.Clone(s.flushed.offsets[g])
			if g.offsets == nil {
				g.offsets = map[*queue]int64{}
			}
		}
		for i := range s.delayLevels {
			s.delayLevels[i].next = min(s.flushed.levels[i], s.topics[scheduleTopic].queues[i].end())
		}
		s.rereadWheel()
		s.rereadMarkers()
	}
}

// truncate loses the messages that were stored after an instant.
func (s *Server) truncate(after time.Time) {
	for n := len(s.log.entries); n > 0 && s.log.entries[n-1].stored.After(after); n-- {
		e := s.log.entries[n-1]
		s.log.entries[n-1] = nil
		s.log.entries = s.log.entries[:n-1]
		s.log.next = e.offset
		s.log.bytes -= len(e.encoded)
		last := len(e.queue.entries) - 1
		e.queue.entries[last] = nil
		e.queue.entries = e.queue.entries[:last]
	}
}

// rereadWheel fills the wheel from the stored timers, those that were delivered since the last flush among them.
func (s *Server) rereadWheel() {
	s.wheel = wheel{}
	for _, e := range s.topics[timerTopic].queues[0].entries {
		slot, err := strconv.ParseInt(e.record().Properties[propertyTimerOut], 10, 64)
		if err == nil && time.UnixMilli(slot+s.precision()).After(s.flushed.at) {
			s.wheel[slot] = append(s.wheel[slot], e.queueOffset)
		}
	}
}

// rereadMarkers finds out which half messages have ended, from the written markers.
func (s *Server) rereadMarkers() {
	h := &s.halves
	h.next = min(s.flushed.halves, s.topics[halfTopic].queues[0].end())
	clear(h.ended)
	for _, e := range s.topics[opTopic].queues[0].entries {
		for text := range strings.SplitSeq(string(e.record().Body), ",") {
			if offset, err := strconv.ParseInt(text, 10, 64); err == nil && offset >= h.next {
				h.ended[offset] = struct{}{}
			}
		}
	}
}

// restore makes the agenda anew from what is stored, and does what is due. It is called with s.mu held.
func (s *Server) restore() {
	s.schedule.items = nil
	s.rebuildHalves()
	s.rebuildWheel()
	s.rebuildLevels()
	s.flush()
	s.runDue()
	s.wakeScheduler()
	s.changed()
}

// sortedKeys keeps what is done for each of a map in one order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
