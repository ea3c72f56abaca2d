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

// Loss is what a broker loses when it stops. It always loses connections, group members and queue locks. It never loses
// topics. Each value includes those before it.
type Loss int

const (
	// LoseNothing loses nothing else: an ideal shutdown.
	LoseNothing Loss = iota
	// LoseMarkers loses the markers of ended transactions that are not written yet, as a real broker does in a normal shutdown.
	// These transactions are checked although they have ended.
	LoseMarkers
	// LoseMemory loses, as kill -9 does, the offsets of groups and the progress of timers and delayed messages since the last
	// flush (Config.OffsetFlushInterval). Some messages are delivered twice.
	LoseMemory
	// LoseUnflushed loses, as a power failure does, the messages of the last Config.FlushInterval, acknowledged or not.
	// Messages that [Server.MessagesSince] returned may be gone, and their positions are used again.
	LoseUnflushed
)

// positions are the positions in queues as of the last flush: what a killed broker starts from.
type positions struct {
	at      time.Time
	offsets map[*group]map[*queue]int64
	levels  []int64
	halves  int64
}

// flush records the positions, and schedules the next flush.
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

// Stop stops the broker with a loss. The name server continues; it keeps the routes of a broker that was killed (LoseMemory,
// LoseUnflushed). Stopping a stopped broker does nothing.
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

// Start starts the broker again, at its address, and runs what fell due meanwhile. Starting a running broker does nothing. It
// returns an error if the address is in use or the server is closed.
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

// Restart stops the broker with a loss and starts it again, see Stop and Start.
func (s *Server) Restart(loss Loss) error {
	s.Stop(loss)
	return s.Start()
}

// StopNameServer stops the name server. The broker continues.
func (s *Server) StopNameServer() {
	s.lifecycle.Lock()
	defer s.lifecycle.Unlock()
	s.mu.Lock()
	s.nameServer.generation++
	s.mu.Unlock()
	s.nameServer.stop()
}

// StartNameServer starts the name server again, at its address. It knows the broker's routes at once. Starting a running name
// server does nothing. It returns an error if the address is in use or the server is closed.
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

// lose applies a loss. It is called with s.mu held.
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

// truncate removes the messages that were stored after an instant.
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

// rereadWheel fills the timer wheel from the stored timers, including those that were delivered since the last flush.
func (s *Server) rereadWheel() {
	s.wheel = wheel{}
	for _, e := range s.topics[timerTopic].queues[0].entries {
		slot, err := strconv.ParseInt(e.record().Properties[propertyTimerOut], 10, 64)
		if err == nil && time.UnixMilli(slot+s.precision()).After(s.flushed.at) {
			s.wheel[slot] = append(s.wheel[slot], e.queueOffset)
		}
	}
}

// rereadMarkers rebuilds the set of ended half messages from the written markers.
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

// restore rebuilds the schedule from the stored messages, and runs what is due. It is called with s.mu held.
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

// sortedKeys returns the keys of a map in a reproducible order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
