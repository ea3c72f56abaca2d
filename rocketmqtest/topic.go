package rocketmqtest

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Topics of the broker's own.
const (
	defaultTopic  = "TBW102" // gives its route to a topic that appears by itself
	halfTopic     = "RMQ_SYS_TRANS_HALF_TOPIC"
	opTopic       = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
	discardTopic  = "TRANS_CHECK_MAX_TIME_TOPIC"
	scheduleTopic = "SCHEDULE_TOPIC_XXXX"
	timerTopic    = "rmq_sys_wheel_timer"

	retryPrefix = "%RETRY%"
	deadPrefix  = "%DLQ%"
)

const permReadWrite = remoting.PermRead | remoting.PermWrite

// topic is a name with queues.
type topic struct {
	name        string
	read, write int
	perm        int
	attributes  map[string]string
	queues      []*queue // at least read and write of them
}

// queue is an ordered list of messages.
type queue struct {
	topic   *topic
	id      int
	first   int64 // offset of entries[0]
	entries []*entry
	polls   map[*poll]struct{} // who waits for a message
}

// end is the offset that the next message gets.
func (q *queue) end() int64 { return q.first + int64(len(q.entries)) }

// at returns the message of an offset, or nil.
func (q *queue) at(offset int64) *entry {
	if i := offset - q.first; i >= 0 && i < int64(len(q.entries)) {
		return q.entries[i]
	}
	return nil
}

// makeTopic makes a topic, or changes one that exists. Queues never go: they are no longer served.
func (s *Server) makeTopic(name string, read, write, perm int) *topic {
	t := s.topics[name]
	if t == nil {
		t = &topic{name: name, attributes: map[string]string{}}
		s.topics[name] = t
	}
	t.read, t.write, t.perm = read, write, perm
	for len(t.queues) < max(read, write) {
		t.queues = append(t.queues, &queue{topic: t, id: len(t.queues), polls: map[*poll]struct{}{}})
	}
	return t
}

func (s *Server) makeSystemTopics() {
	for _, name := range []string{halfTopic, opTopic, timerTopic} {
		s.makeTopic(name, 1, 1, permReadWrite)
	}
	s.makeTopic(scheduleTopic, len(s.config.DelayLevels), len(s.config.DelayLevels), permReadWrite)
	if s.config.AutoCreateTopics {
		s.makeTopic(defaultTopic, 8, 8, permReadWrite|permInherit)
	}
}

// permInherit marks a topic whose queues are the pattern for others.
const permInherit = 1

// systemTopic tells whether a name is the broker's own: clients may neither create it nor send to it.
func systemTopic(name string) bool {
	switch name {
	case halfTopic, opTopic, discardTopic, scheduleTopic, defaultTopic, "BenchmarkTest", "OFFSET_MOVED_EVENT", "SELF_TEST_TOPIC", "RMQ_SYS_SELF_TEST_TOPIC":
		return true
	}
	return strings.HasPrefix(name, "rmq_sys_")
}

var topicName = regexp.MustCompile(`^[%|a-zA-Z0-9_-]+$`)

// illegalTopic says what is wrong with the name of a topic, or "".
func illegalTopic(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "The specified topic is blank."
	case !topicName.MatchString(name):
		return fmt.Sprintf("The specified topic[%s] contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$", name)
	case len(name) > remoting.MaxTopic:
		return fmt.Sprintf("The specified topic is longer than topic max length %d.", remoting.MaxTopic)
	}
	return ""
}

// updateTopic creates or changes a topic (17).
func (s *Server) updateTopic(r *request) *remoting.Command {
	name := r.Ext["topic"]
	if problem := illegalTopic(name); problem != "" {
		return r.refuse(remoting.InvalidParameter, "%s", problem)
	}
	if systemTopic(name) {
		return r.refuse(remoting.InvalidParameter, "The topic[%s] is conflict with system topic.", name)
	}
	if refusal := r.need("readQueueNums", "writeQueueNums", "perm"); refusal != nil {
		return refusal
	}
	t := s.makeTopic(name, int(r.number("readQueueNums")), int(r.number("writeQueueNums")), int(r.number("perm")))
	for change := range strings.SplitSeq(r.Ext["attributes"], ",") {
		if key, value, ok := strings.Cut(change, "="); ok {
			t.attributes[strings.TrimPrefix(key, "+")] = value
		} else {
			delete(t.attributes, strings.TrimPrefix(change, "-"))
		}
	}
	return r.answer()
}

// deleteTopic forgets a topic and what it holds (215 on the broker, 216 on the name server).
func (s *Server) deleteTopic(r *request) *remoting.Command {
	name := r.Ext["topic"]
	if problem := illegalTopic(name); problem != "" {
		return r.refuse(remoting.InvalidParameter, "%s", problem)
	}
	if systemTopic(name) {
		return r.refuse(remoting.InvalidParameter, "The topic[%s] is conflict with system topic.", name)
	}
	delete(s.topics, name)
	return r.answer()
}

// CreateTopic makes a topic with queues to write to and to read from, as an operator would. One that exists is changed.
func (s *Server) CreateTopic(name string, queues int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeTopic(name, queues, queues, permReadWrite)
}
