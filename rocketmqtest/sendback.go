package rocketmqtest

import (
	"cmp"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// retryMax is how often a group gets a message again, unless the consumer says otherwise.
const retryMax = 16

// firstRetryLevel is the delay level of the first retry; each further one takes the next.
const firstRetryLevel = 3

// sendMessageBack takes back a message that a consumer couldn't handle (36). The group gets it again when the delay is
// over, or it becomes one of its dead letters.
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

// systemTopicOf returns a group's topic of retries or of dead letters, and makes it.
func (s *Server) systemTopicOf(name string) *topic {
	if t := s.topics[name]; t != nil {
		return t
	}
	return s.makeTopic(name, 1, 1, permReadWrite)
}

// sendToRetries finds the topic of a message that a client sends to the retries of a group itself: the dead letters
// where it has been there too often, or where the group consumes in order.
func (s *Server) sendToRetries(h *sendHeader) *topic {
	g := s.group(strings.TrimPrefix(h.topic, retryPrefix))
	if h.reconsumed <= h.maximum && !s.ordered(g) {
		return s.systemTopicOf(h.topic)
	}
	h.properties[propertyDelayLevel] = "0"
	h.queue = 0
	return s.systemTopicOf(deadPrefix + g.name)
}
