package rocketmqtest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
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

// maxQueues bounds the queues of a topic: they are memory here, and more are a mistake.
const maxQueues = 1 << 14

const permReadWrite = remoting.PermRead | remoting.PermWrite

// topic is a name with queues.
type topic struct {
	name        string
	read, write int
	perm        int
	attributes  map[string]string
	queues      []*queue // at least read and write of them
}

// String is the topic as a broker in Java prints it.
func (t *topic) String() string {
	perm := []byte("---")
	for i, bit := range []int{remoting.PermRead, remoting.PermWrite, permInherit} {
		if t.perm&bit != 0 {
			perm[i] = "RWX"[i]
		}
	}
	var attributes []string
	for _, key := range slices.Sorted(maps.Keys(t.attributes)) {
		attributes = append(attributes, key+"="+t.attributes[key])
	}
	return fmt.Sprintf("TopicConfig [topicName=%s, readQueueNums=%d, writeQueueNums=%d, perm=%s, topicFilterType=SINGLE_TAG, topicSysFlag=0, order=false, attributes={%s}]",
		t.name, t.read, t.write, perm, strings.Join(attributes, ", "))
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

// forbiddenTopic tells whether clients may not send to a topic.
func forbiddenTopic(name string) bool {
	switch name {
	case halfTopic, opTopic, discardTopic, scheduleTopic, timerTopic, "OFFSET_MOVED_EVENT", "SELF_TEST_TOPIC":
		return true
	}
	return false
}

var topicName = regexp.MustCompile(`^[%|a-zA-Z0-9_-]+$`)

// illegalTopic says what is wrong with the name of a topic, or "".
func illegalTopic(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "The specified topic is blank."
	case !topicName.MatchString(name):
		return "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
	case len(name) > remoting.MaxTopic:
		return "The specified topic is longer than topic max length."
	}
	return ""
}

// updateTopic creates or changes a topic (17).
func (s *Server) updateTopic(r *request) *remoting.Command {
	if refusal := r.requireFields("topic"); refusal != nil {
		return refusal
	}
	name := r.Ext["topic"]
	switch kind := r.Ext["topicFilterType"]; kind {
	case "SINGLE_TAG", "MULTI_TAG":
	default:
		return r.refuse(remoting.SystemError, "topicFilterType = [%s] value invalid", kind)
	}
	if refusal := s.illegalName(r, name); refusal != nil {
		return refusal
	}
	if refusal := r.requireNumbers("readQueueNums", "writeQueueNums", "perm"); refusal != nil {
		return refusal
	}
	for _, name := range []string{"readQueueNums", "writeQueueNums"} {
		if n := r.number(name); n < 0 || n > maxQueues {
			return r.refuse(remoting.InvalidParameter, "%s: %d, want at most %d", name, n, maxQueues)
		}
	}
	changes, refusal := attributes(r)
	if refusal != nil {
		return refusal
	}
	t := s.makeTopic(name, int(r.number("readQueueNums")), int(r.number("writeQueueNums")), int(r.number("perm")))
	for key, value := range changes {
		if t.attributes[key] = value; value == "" {
			delete(t.attributes, key)
		}
	}
	return r.refuse(remoting.Success, noRemark)
}

// illegalName refuses a name that a topic can't have, or that is the broker's.
func (s *Server) illegalName(r *request, name string) *remoting.Command {
	if problem := illegalTopic(name); problem != "" {
		return r.refuse(remoting.InvalidParameter, "%s", problem)
	}
	if systemTopic(name) || name == clusterName || name == s.config.Name {
		return r.refuse(remoting.InvalidParameter, "The topic[%s] is conflict with system topic.", name)
	}
	return nil
}

const typeAttribute = "message.type"

// attributes reads changes of attributes, as in "+message.type=FIFO,-other"; "" is the value of what goes. A topic has no
// attribute but its type.
func attributes(r *request) (map[string]string, *remoting.Command) {
	changes := map[string]string{}
	if r.Ext["attributes"] == "" {
		return changes, nil
	}
	for change := range strings.SplitSeq(r.Ext["attributes"], ",") {
		key, value, set := strings.Cut(change, "=")
		switch {
		case set && !strings.HasPrefix(key, "+"):
			return nil, r.refuse(remoting.SystemError, "add/alter attribute format is wrong: %s", key)
		case !set && !strings.HasPrefix(key, "-"):
			return nil, r.refuse(remoting.SystemError, "delete attribute format is wrong: %s", key)
		}
		if key = key[1:]; key != typeAttribute {
			return nil, r.refuse(remoting.SystemError, "unsupported key: %s", key)
		}
		switch value {
		case "", "UNSPECIFIED", "TRANSACTION", "FIFO", "DELAY", "NORMAL":
		case "MIXED":
			return nil, r.refuse(remoting.InvalidParameter, "MIXED message type is not supported.")
		default:
			return nil, r.refuse(remoting.SystemError, "value is not in set: [UNSPECIFIED, TRANSACTION, FIFO, MIXED, DELAY, NORMAL]")
		}
		changes[key] = value
	}
	return changes, nil
}

// deleteTopic forgets a topic, what it holds and how far groups have come in it (215).
func (s *Server) deleteTopic(r *request) *remoting.Command {
	name := r.Ext["topic"]
	if refusal := s.illegalName(r, name); refusal != nil {
		return refusal
	}
	t := s.topics[name]
	if t == nil {
		return r.respond()
	}
	delete(s.topics, name)
	for _, q := range t.queues {
		for p := range q.polls {
			s.endPoll(p)
		}
		for _, g := range s.groups {
			delete(g.offsets, q)
		}
	}
	return r.respond()
}

// deleteTopicInNames has nothing to do: the name server has no routes of its own (216).
func (s *Server) deleteTopicInNames(r *request) *remoting.Command { return r.respond() }

// CreateTopic makes a topic with queues to write to and to read from, as an operator would. One that exists is changed.
func (s *Server) CreateTopic(name string, queues int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeTopic(name, queues, queues, permReadWrite)
}
