package rocketmqtest

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// recallHandle identifies a timer in a recall request. Its text is the base64 of "v1", topic, broker, instant in milliseconds
// and unique key, separated by spaces.
type recallHandle struct {
	topic, broker string
	instant       int64
	key           string
}

func (h recallHandle) String() string {
	return base64.URLEncoding.EncodeToString(fmt.Appendf(nil, "v1 %s %s %d %s", h.topic, h.broker, h.instant, h.key))
}

// parseRecallHandle parses the text of a handle.
func parseRecallHandle(text string) (recallHandle, error) {
	b, err := base64.URLEncoding.DecodeString(text)
	parts := strings.Split(string(b), " ")
	if err != nil || len(parts) != 5 || parts[0] != "v1" {
		return recallHandle{}, fmt.Errorf("recall handle is invalid")
	}
	instant, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		instant = -1 // in the past, so the request is refused
	}
	return recallHandle{topic: parts[1], broker: parts[2], instant: instant, key: parts[4]}, nil
}

// recallHandleOf returns the handle of a timer that was just stored, or "" for a message that can't be recalled.
func (s *Server) recallHandleOf(r *remoting.Record) string {
	slot, err := strconv.ParseInt(r.Properties[propertyTimerOut], 10, 64)
	topic := r.Properties[propertyRealTopic]
	if err != nil || topic == "" || strings.HasPrefix(topic, retryPrefix) {
		return ""
	}
	return recallHandle{topic: topic, broker: s.config.Name, instant: slot + 1, key: r.Properties[propertyUniqueKey]}.String()
}

// recallMessage deletes a timer (370). Like a real broker it does not check that the timer exists.
func (s *Server) recallMessage(r *request) *remoting.Command {
	refuse := func(code remoting.Code, format string, args ...any) *remoting.Command {
		a := r.refuse(code, format, args...)
		a.Ext = map[string]string{"MSG_REGION": "DefaultRegion"}
		return a
	}
	if s.config.DMS || s.config.Version == RocketMQ49 {
		return r.refuse(remoting.NotSupported, " request type %d not supported", r.Code)
	}
	if refusal := r.requireFields("topic"); refusal != nil {
		return refusal
	}
	topic := r.Ext["topic"]
	if s.topics[topic] == nil {
		return refuse(remoting.TopicNotExist, "recall failed, the topic[%s] not exist", topic)
	}
	h, err := parseRecallHandle(r.Ext["recallHandle"])
	if err != nil {
		return refuse(remoting.IllegalOperation, "%v", err)
	}
	if h.topic != topic {
		return refuse(remoting.IllegalOperation, "recall failed, topic not match")
	}
	if h.broker != s.config.Name {
		return refuse(remoting.IllegalOperation, "recall failed, broker service not available")
	}
	now := s.clock.Now()
	if left := h.instant - now.UnixMilli(); left <= 0 || left >= s.config.TimerMaxDelay.Milliseconds() {
		return refuse(remoting.IllegalOperation, "recall failed, timestamp invalid")
	}
	record := &remoting.Record{Topic: topic, Born: now, BornHost: r.from.remote, Body: []byte("0"), Properties: map[string]string{
		propertyTag:           "_RECALL_TAG_",
		propertyTimerDelete:   s.timerKey(topic, h.key),
		propertyUniqueKey:     h.key,
		propertyTimerDeliver:  strconv.FormatInt(h.instant, 10),
		propertyProducerGroup: r.Ext["producerGroup"],
		"BORN_TIMESTAMP":      strconv.FormatInt(now.UnixMilli(), 10),
		"TRACE_CONTEXT":       "",
	}}
	if _, refusal := s.place(r, record); refusal != nil {
		return refuse(remoting.SystemError, "recall failed, execute error")
	}
	a := refuse(remoting.Success, noRemark)
	a.Ext["msgId"] = h.key
	return a
}
