package rocketmqtest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Names of the broker's own topics, and prefixes of topics that belong to a group.
const (
	defaultTopic  = remoting.DefaultTopic // the pattern of automatically created topics
	halfTopic     = remoting.HalfTopic
	opTopic       = "RMQ_SYS_TRANS_OP_HALF_TOPIC"
	discardTopic  = remoting.DiscardTopic
	scheduleTopic = "SCHEDULE_TOPIC_XXXX"
	timerTopic    = "rmq_sys_wheel_timer"

	retryPrefix = remoting.RetryPrefix
	deadPrefix  = remoting.DeadPrefix
)

// maxQueues is the maximum number of queues of a topic. More are a mistake, and each takes memory.
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

// String returns the topic as a broker in Java prints it.
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
	polls   map[*poll]struct{} // pulls that wait for a message
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

// makeTopic creates a topic or changes an existing one. Queues beyond the new numbers are kept but not served.
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

// makeSystemTopics creates the broker's own topics.
func (s *Server) makeSystemTopics() {
	for _, name := range []string{halfTopic, opTopic, timerTopic} {
		s.makeTopic(name, 1, 1, permReadWrite)
	}
	s.makeTopic(scheduleTopic, len(s.config.DelayLevels), len(s.config.DelayLevels), permReadWrite)
	if s.config.AutoCreateTopics {
		s.makeTopic(defaultTopic, 8, 8, permReadWrite|permInherit)
	}
}

// permInherit is the permission bit of the topic that is the pattern of automatically created ones.
const permInherit = 1

// systemTopic reports whether a topic is the broker's own: clients may not create or delete it.
func systemTopic(name string) bool {
	switch name {
	case halfTopic, opTopic, discardTopic, scheduleTopic, defaultTopic, "BenchmarkTest", "OFFSET_MOVED_EVENT", "SELF_TEST_TOPIC", "RMQ_SYS_SELF_TEST_TOPIC":
		return true
	}
	return strings.HasPrefix(name, "rmq_sys_")
}

// forbiddenTopic reports whether clients may not send to a topic.
func forbiddenTopic(name string) bool {
	switch name {
	case halfTopic, opTopic, discardTopic, scheduleTopic, timerTopic, "OFFSET_MOVED_EVENT", "SELF_TEST_TOPIC":
		return true
	}
	return false
}

var topicName = regexp.MustCompile(`^[%|a-zA-Z0-9_-]+$`)

// updateTopic creates or changes a topic (17).
func (s *Server) updateTopic(r *request) *remoting.Command {
	if refusal := r.requireFields("topic"); refusal != nil && !s.is4() {
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
	changes, refusal := s.attributes(r)
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

// illegalName returns a refusal of a name that is malformed or reserved, else nil.
func (s *Server) illegalName(r *request, name string) *remoting.Command {
	if problem := s.illegalTopic(name); problem != "" {
		return r.refuse(s.invalid(), "%s", problem)
	}
	if systemTopic(name) || name == clusterName || name == s.config.Name {
		return r.refuse(s.invalid(), "The topic[%s] is conflict with system topic.", name)
	}
	return nil
}

const typeAttribute = "message.type"

// attributes parses changes of attributes, such as "+message.type=FIFO,-other". A removed attribute has the value "". The
// only attribute of a topic is its type. RocketMQ 4 has no attributes and ignores them.
func (s *Server) attributes(r *request) (map[string]string, *remoting.Command) {
	changes := map[string]string{}
	if r.Ext["attributes"] == "" || s.is4() {
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
		switch types := s.messageTypes(); {
		case value == "":
		case value == "MIXED":
			return nil, r.refuse(remoting.InvalidParameter, "MIXED message type is not supported.")
		case !slices.Contains(types, value):
			return nil, r.refuse(remoting.SystemError, "value is not in set: [%s]", strings.Join(types, ", "))
		}
		changes[key] = value
	}
	return changes, nil
}

// deleteTopic deletes a topic with its messages and the offsets of groups in it (215).
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

// CreateTopic creates a topic with a number of readable and writable queues, or changes the number of an existing one.
func (s *Server) CreateTopic(name string, queues int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeTopic(name, queues, queues, permReadWrite)
}
