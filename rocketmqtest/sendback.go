package rocketmqtest

import (
	"cmp"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// retryMax is the default of the maximum number of retries.
const retryMax = 16

// firstRetryLevel is the delay level of the first retry; each further one takes the next.
const firstRetryLevel = 3

// sendMessageBack schedules a retry of a message that a consumer could not handle, or makes it a dead letter (36).
func (s *Server) sendMessageBack(r *request) *remoting.Command {
	if refusal := cmp.Or(r.requireFields("group"), r.requireNumbers("offset", "delayLevel")); refusal != nil {
		return refusal
	}
	name := r.Ext["group"]
	s.group(name)
	t := s.systemTopicOf(retryPrefix + name)
	e := s.log.at(r.number("offset"))
	if e == nil {
		return r.refuse(remoting.SystemError, "look message by offset failed, %d", r.number("offset"))
	}
	most := int64(retryMax)
	if _, set := r.Ext["maxReconsumeTimes"]; set {
		most = r.number("maxReconsumeTimes")
	}
	record := e.record()
	from := record.Topic
	if record.Properties[propertyRetryTopic] == "" {
		record.Properties[propertyRetryTopic] = from
	}
	record.Properties[propertyOriginID] = cmp.Or(record.Properties[propertyOriginID], remoting.OffsetID(s.broker.address, e.offset))
	record.Properties[propertyWait] = "false"
	level := int(r.number("delayLevel"))
	dead := int64(record.Reconsumed) >= most || level < 0
	if level == 0 {
		level = firstRetryLevel + record.Reconsumed
	}
	record.Reconsumed++
	record.Queue, record.PreparedOffset = 0, 0
	var err error
	if dead {
		record.Properties[propertyDelayLevel] = "0"
		_, err = s.put(s.systemTopicOf(deadPrefix+name), record)
	} else {
		record.Topic = t.name
		_, err = s.putDelayed(record, level)
	}
	if err != nil {
		return r.refuse(remoting.SystemError, "%v", err)
	}
	return r.respond()
}

// systemTopicOf returns a group's topic of retries or of dead letters, which it creates if it is new.
func (s *Server) systemTopicOf(name string) *topic {
	if t := s.topics[name]; t != nil {
		return t
	}
	return s.makeTopic(name, 1, 1, permReadWrite)
}

// sendToRetries returns the topic for a message that a client itself sends to a group's topic of retries: that of dead letters
// if the message has no retries left, or if the group consumes in order.
func (s *Server) sendToRetries(h *sendHeader) *topic {
	g := s.group(strings.TrimPrefix(h.topic, retryPrefix))
	last := h.maximum
	if s.is4() {
		last--
	}
	if h.reconsumed <= last && !s.ordered(g) {
		return s.systemTopicOf(h.topic)
	}
	h.properties[propertyDelayLevel] = "0"
	h.queue = 0
	return s.systemTopicOf(deadPrefix + g.name)
}
