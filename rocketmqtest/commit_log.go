package rocketmqtest

import (
	"sort"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// commitLog holds the messages of all topics in the order of storage, like a broker's commit log files.
type commitLog struct {
	entries []*entry
	next    int64 // offset of the next message
	bytes   int   // size of the entries
}

// entry is a stored message.
type entry struct {
	offset      int64 // in the commit log
	queue       *queue
	queueOffset int64
	stored      time.Time
	tag         string
	encoded     []byte
}

// record decodes the message. The caller owns the record except its body.
func (e *entry) record() *remoting.Record {
	records, err := remoting.DecodeRecords(e.encoded)
	if err != nil {
		panic(err) // put has encoded it
	}
	return records[0]
}

// at returns the message that begins at an offset, or nil.
func (l *commitLog) at(offset int64) *entry {
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].offset >= offset })
	if i < len(l.entries) && l.entries[i].offset == offset {
		return l.entries[i]
	}
	return nil
}

// put stores a record in its topic's queue, sets its offsets and store time, and responds to pulls that wait for it. It is
// called with s.mu held. It fails only if the record can't be encoded.
func (s *Server) put(t *topic, r *remoting.Record) (*entry, error) {
	q := t.queues[r.Queue]
	r.Topic = t.name
	r.CommitLog, r.QueueOffset = s.log.next, q.end()
	r.Stored, r.StoreHost = s.clock.Now(), s.broker.address
	encoded, err := r.Append(nil)
	if err != nil {
		return nil, err
	}
	e := &entry{offset: r.CommitLog, queue: q, queueOffset: r.QueueOffset, stored: r.Stored, tag: r.Properties[propertyTag], encoded: encoded}
	s.log.entries = append(s.log.entries, e)
	s.log.next += int64(len(encoded))
	s.log.bytes += len(encoded)
	q.entries = append(q.entries, e)
	s.trim()
	s.arrived(q, e)
	return e, nil
}

// trim deletes the oldest messages beyond Config.MaxBytes.
func (s *Server) trim() {
	for s.log.bytes > s.config.MaxBytes {
		e := s.log.entries[0]
		s.log.entries[0] = nil
		s.log.entries = s.log.entries[1:]
		s.log.bytes -= len(e.encoded)
		e.queue.first++
		e.queue.entries[0] = nil
		e.queue.entries = e.queue.entries[1:]
	}
}
