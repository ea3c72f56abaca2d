package rocketmqtest

import (
	"fmt"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// What differs between the versions and is more than a line of one handler. TestSameResponsesAsRocketMQ compares each with the real one.

// is4 reports whether the broker behaves as RocketMQ 4.9.
func (s *Server) is4() bool { return s.config.Version == RocketMQ49 }

// is55 reports whether the broker behaves as RocketMQ 5.5.
func (s *Server) is55() bool { return s.config.Version == RocketMQ55 }

// invalid is the code of a response to a request with an invalid field.
func (s *Server) invalid() remoting.Code {
	if s.is4() {
		return remoting.SystemError
	}
	return remoting.InvalidParameter
}

// illegalTopic returns what is wrong with the name of a topic, or "".
func (s *Server) illegalTopic(name string) string {
	switch {
	case strings.TrimSpace(name) == "":
		return "The specified topic is blank."
	case !topicName.MatchString(name):
		if s.is55() {
			return fmt.Sprintf("The specified topic: %s, contains illegal characters, allowing only ^[%%|a-zA-Z0-9_-]+$", name)
		}
		return "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
	case len(name) > remoting.MaxTopic:
		if s.is55() {
			return fmt.Sprintf("The specified topic: %s, is longer than topic max length: %d", name, remoting.MaxTopic)
		}
		return "The specified topic is longer than topic max length."
	}
	return ""
}

// topicText returns a topic as a broker in Java prints it.
func (s *Server) topicText(t *topic) string {
	if text := t.String(); s.is4() {
		before, _, _ := strings.Cut(text, ", attributes=")
		return before + "]"
	}
	return t.String()
}

// messageTypes returns the types of topics, in the order in which a broker in Java prints them.
func (s *Server) messageTypes() []string {
	if s.is55() {
		return []string{"UNSPECIFIED", "MIXED", "TRANSACTION", "PRIORITY", "FIFO", "DELAY", "LITE", "NORMAL"}
	}
	return []string{"UNSPECIFIED", "TRANSACTION", "FIFO", "MIXED", "DELAY", "NORMAL"}
}

// withOrigin adds to the properties of a sent message where it was stored. 5.5 does so for the outer message of a batch only, which it
// doesn't store.
func (s *Server) withOrigin(properties map[string]string, batch bool) {
	if batch && s.is55() {
		return
	}
	properties[propertyCluster] = clusterName
	if !s.is4() {
		properties[propertyRegion], properties[propertyTrace] = region, "true"
	}
}
