package rocketmqtest

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// sendHeader is the header of a send request, with the long names of code 10 or the letters of 310 and 320.
type sendHeader struct {
	group, topic        string
	defaultQueues       int
	queue               int
	sysFlag, flag       int32
	born                time.Time
	properties          map[string]string
	reconsumed, maximum int // maximum defaults to retryMax
	batch               bool
}

// decodeSend decodes the header of a send request.
func (s *Server) decodeSend(r *request) (sendHeader, *remoting.Command) {
	name := func(long, short string) string {
		if r.Code == remoting.SendMessage {
			return long
		}
		return short
	}
	var refusal *remoting.Command
	if !s.is4() {
		refusal = r.requireFields(name("topic", "b"))
	}
	refusal = cmp.Or(refusal, r.requireNumbers(name("queueId", "e"), name("sysFlag", "f"), name("bornTimestamp", "g"), name("flag", "h")))
	if r.Code != remoting.SendMessage {
		refusal = cmp.Or(refusal, r.optionalNumbers("d", "j", "l"))
	}
	if refusal != nil {
		return sendHeader{}, refusal
	}
	most := retryMax
	if r.requireNumbers(name("maxReconsumeTimes", "l")) == nil {
		most = int(r.number(name("maxReconsumeTimes", "l")))
	}
	return sendHeader{
		group:         r.Ext[name("producerGroup", "a")],
		topic:         r.Ext[name("topic", "b")],
		defaultQueues: int(r.number(name("defaultTopicQueueNums", "d"))),
		queue:         int(r.number(name("queueId", "e"))),
		sysFlag:       int32(r.number(name("sysFlag", "f"))),
		born:          time.UnixMilli(r.number(name("bornTimestamp", "g"))),
		flag:          int32(r.number(name("flag", "h"))),
		properties:    remoting.DecodeProperties(r.Ext[name("properties", "i")]),
		reconsumed:    int(r.number(name("reconsumeTimes", "j"))),
		maximum:       most,
		batch:         r.Ext[name("batch", "m")] == "true",
	}, nil
}

// sendMessage stores a message or a batch (10, 310, 320).
func (s *Server) sendMessage(r *request) *remoting.Command {
	h, refusal := s.decodeSend(r)
	if refusal != nil {
		return refusal
	}
	if len(r.Body) == 0 && !s.is4() {
		return r.refuse(remoting.SystemError, badField, "body", "")
	}
	members := []batchMember{{body: r.Body, flag: h.flag, properties: h.properties}}
	if h.batch {
		var err error
		if members, err = decodeBatch(r.Body); err != nil {
			return r.refuse(remoting.SystemError, "%v", err)
		}
		if !s.is55() { // each member gets the properties of the whole
			for i, m := range members {
				own := m.properties[propertyUniqueKey]
				maps.Copy(m.properties, h.properties)
				if key := h.properties[propertyUniqueKey]; key != "" && own != "" { // the member's own stays before it
					m.properties[propertyUniqueKey] = own
					members[i].appended = map[string]string{propertyUniqueKey: key}
				}
			}
		}
	}
	answer := s.send(r, h, members)
	if strings.HasPrefix(answer.Remark, "java.") { // a real broker has lost its unfinished response by then
		return answer
	}
	if answer.Ext == nil {
		answer.Ext = map[string]string{}
	}
	answer.Ext[propertyRegion], answer.Ext[propertyTrace] = region, "true"
	return answer
}

// send stores the messages of a send request.
func (s *Server) send(r *request, h sendHeader, members []batchMember) *remoting.Command {
	t, refusal := s.topicToSendTo(r, &h)
	if refusal != nil {
		return refusal
	}
	if h.queue < 0 && t.write > 0 {
		h.queue = s.random.IntN(t.write)
	}
	if h.queue < 0 || h.queue >= t.write {
		return r.refuse(s.invalid(), "request queueId[%d] is illegal, %s Producer: %v", h.queue, s.topicText(t), r.from.remote)
	}
	born := h.born.Add(s.clock.Offset()) // the client's clock is real time
	var ids []string
	var first *remoting.Record
	for _, m := range members {
		if len(m.body) > s.config.MaxMessageSize || len(r.Body) > s.config.MaxMessageSize {
			return s.tooLarge(r)
		}
		if !h.batch && m.properties[propertyUniqueKey] == "" && !s.is4() {
			m.properties[propertyUniqueKey] = fmt.Sprintf("%016X%016X", s.random.Uint64(), s.random.Uint64())
		}
		s.withOrigin(m.properties, h.batch)
		record := &remoting.Record{
			Queue: h.queue, Flag: m.flag, SysFlag: h.sysFlag &^ remoting.FlagTransaction, Born: born, BornHost: r.from.remote,
			Reconsumed: h.reconsumed, Properties: m.properties, Appended: m.appended, Body: m.body,
		}
		e, refusal := s.store(r, t, record)
		if refusal != nil {
			return refusal
		}
		if first == nil {
			first = record
		}
		ids = append(ids, remoting.OffsetID(s.broker.address, e.offset))
	}
	answer := r.respond(
		"msgId", strings.Join(ids, ","),
		"queueId", strconv.Itoa(h.queue),
		"queueOffset", strconv.FormatInt(first.QueueOffset, 10),
	)
	if h.batch || s.is4() {
		return answer
	}
	answer.Ext["transactionId"] = first.Properties[propertyUniqueKey]
	if handle := s.recallHandleOf(first); handle != "" {
		answer.Ext["recallHandle"] = handle
	}
	return answer
}

// topicToSendTo returns the topic of a message. It creates a missing one if Config.AutoCreateTopics is set.
func (s *Server) topicToSendTo(r *request, h *sendHeader) (*topic, *remoting.Command) {
	if problem := s.illegalTopic(h.topic); problem != "" {
		return nil, r.refuse(s.invalid(), "%s", problem)
	}
	if forbiddenTopic(h.topic) {
		return nil, r.refuse(remoting.NoPermission, "Sending message to topic[%s] is forbidden.", h.topic)
	}
	t := s.topics[h.topic]
	switch {
	case strings.HasPrefix(h.topic, retryPrefix):
		return s.sendToRetries(h), nil
	case t != nil: // clients check whether it is writable
	case s.config.AutoCreateTopics:
		n := max(1, min(h.defaultQueues, s.topics[defaultTopic].write))
		t = s.makeTopic(h.topic, n, n, permReadWrite)
	default:
		return nil, r.refuse(remoting.TopicNotExist, "topic[%s] not exist, apply first please!"+seeFAQ, h.topic)
	}
	return t, nil
}

// tooLarge is the refusal of a message that is too large or can't be encoded.
func (s *Server) tooLarge(r *request) *remoting.Command {
	return r.refuse(remoting.MessageIllegal, "the message is illegal, maybe msg body or properties length not matched. msg body length limit %dB, msg properties length limit 32KB.", s.config.MaxMessageSize)
}

// store stores a message in its topic, or as a half message, a timer or a delayed message.
func (s *Server) store(r *request, t *topic, record *remoting.Record) (*entry, *remoting.Command) {
	record.Topic = t.name
	if isHalf(record) {
		s.makeHalf(record)
	}
	return s.place(r, record)
}

// place stores a message in record.Topic, or as a timer or a delayed message. A half message that is also delayed is stored
// elsewhere a second time, which loses its topic, as in a real broker.
func (s *Server) place(r *request, record *remoting.Record) (*entry, *remoting.Command) {
	n, err := delayLevel(record.Properties)
	if err != nil {
		return nil, r.refuse(remoting.SystemError, "%v", err)
	}
	put := s.deliver
	if n > 0 {
		if !s.is4() { // which knows no timers
			delete(record.Properties, propertyTimerDeliver)
			delete(record.Properties, propertyTimerDelaySeconds)
			delete(record.Properties, propertyTimerDelayMillis)
		}
		put = func(record *remoting.Record) (*entry, error) { return s.putDelayed(record, n) }
	} else {
		slot, refusal := s.slotOf(r, record)
		if refusal != nil {
			return nil, refusal
		}
		if slot != atOnce {
			put = func(record *remoting.Record) (*entry, error) { return s.putTimer(record, slot) }
		}
	}
	e, err := put(record)
	if err != nil { // it can't be encoded
		s.config.Logger.Warn("a message could not be encoded and was refused", "topic", record.Topic, "error", err)
		return nil, s.tooLarge(r)
	}
	return e, nil
}

// deliver stores a message in r.Topic.
func (s *Server) deliver(r *remoting.Record) (*entry, error) {
	t := s.topics[r.Topic]
	if t == nil || r.Queue < 0 || r.Queue >= len(t.queues) {
		return nil, fmt.Errorf("topic %s has no queue %d", r.Topic, r.Queue)
	}
	e, err := s.put(t, r)
	if t.name == halfTopic {
		s.armChecks()
	}
	return e, err
}

// deliverWaiting puts a message that has waited into the topic that it is for, with further properties. What set it aside stays
// in its properties.
func (s *Server) deliverWaiting(e *entry, further ...string) {
	r := e.record()
	queue, err := strconv.Atoi(r.Properties[propertyRealQueue])
	for i := 0; i+1 < len(further); i += 2 {
		r.Properties[further[i]] = further[i+1]
	}
	r.Topic, r.Queue, r.PreparedOffset = r.Properties[propertyRealTopic], queue, 0
	if err == nil {
		_, err = s.deliver(r)
	}
	if err != nil {
		s.config.Logger.Warn("a message that waited is lost", "error", err, "topic", r.Topic, "key", r.Properties[propertyUniqueKey])
	}
}

// batchMember is a member of a batch.
type batchMember struct {
	body       []byte
	flag       int32
	properties map[string]string
	appended   map[string]string // stored behind properties: see remoting.Record
}

// decodeBatch decodes the body of a batch: for each member its size, magic, checksum, flag, body and properties.
func decodeBatch(b []byte) ([]batchMember, error) {
	var members []batchMember
	be := binary.BigEndian
	for len(b) > 0 {
		cut := fmt.Errorf("%w batch: member %d is cut short", remoting.ErrMalformed, len(members))
		const head = 4 + 4 + 4 + 4 + 4 // up to and with the body's length
		if len(b) < head {
			return nil, cut
		}
		size, body := int(int32(be.Uint32(b))), int(int32(be.Uint32(b[16:])))
		if size > len(b) || body < 0 || body > len(b) || head+body+2 > size {
			return nil, cut
		}
		props := int(be.Uint16(b[head+body:]))
		if head+body+2+props > size {
			return nil, cut
		}
		members = append(members, batchMember{
			body:       b[head : head+body : head+body],
			flag:       int32(be.Uint32(b[12:])),
			properties: remoting.DecodeProperties(string(b[head+body+2 : head+body+2+props])),
		})
		b = b[size:]
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("%w batch: empty", remoting.ErrMalformed)
	}
	return members, nil
}
