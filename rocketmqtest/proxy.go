package rocketmqtest

import (
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// proxyHandlers are the requests that a proxy serves on its remoting port, see brokerHandlers.
var proxyHandlers = map[remoting.Code]handler{
	remoting.RouteOfTopic: (*Server).routeByProxy,

	remoting.Heartbeat:        (*Server).heartbeat,
	remoting.UnregisterClient: (*Server).unregisterClient,
	remoting.ConsumerList:     (*Server).consumerList,

	remoting.SendMessage:      (*Server).sendByProxy,
	remoting.SendMessageV2:    (*Server).sendByProxy,
	remoting.SendBatchMessage: (*Server).sendByProxy,

	remoting.EndTransaction: (*Server).endByProxy,
	remoting.RecallMessage:  (*Server).recallMessage,

	remoting.PullMessage:     (*Server).pullMessage,
	remoting.SendMessageBack: (*Server).sendMessageBack,
	remoting.LockQueues:      (*Server).lockQueues,
	remoting.UnlockQueues:    (*Server).unlockQueues,

	remoting.QueryConsumerOffset:  (*Server).queryOffset,
	remoting.UpdateConsumerOffset: (*Server).updateOffset,
	remoting.MaxOffset:            (*Server).maxOffset,
	remoting.MinOffset:            (*Server).minOffset,
	remoting.SearchOffset:         (*Server).searchOffset,
}

// proxyRefuses returns the refusal of a request that a proxy doesn't forward, or can't because the broker is away.
func (s *Server) proxyRefuses(r *request) *remoting.Command {
	field := "bname"
	switch r.Code {
	case remoting.RouteOfTopic, remoting.Heartbeat, remoting.UnregisterClient, remoting.ConsumerList, remoting.EndTransaction:
		return nil // not forwarded
	case remoting.LockQueues, remoting.UnlockQueues:
		field = "" // the body names the broker
	case remoting.SendMessageV2, remoting.SendBatchMessage:
		field = "n"
	}
	if _, named := r.Ext[field]; field != "" && !named {
		return r.refuse(remoting.VersionNotSupported, "Request doesn't have field bname")
	}
	if s.stopped {
		return r.refuse(remoting.SystemError, "connect to %s failed", s.broker.address)
	}
	return nil
}

// routeByProxy responds with the route of a topic, in which the proxy is every broker (105).
func (s *Server) routeByProxy(r *request) *remoting.Command {
	return s.route(r, s.proxy.address.String())
}

// sendByProxy stores a message or a batch whose type is the topic's (10, 310, 320).
func (s *Server) sendByProxy(r *request) *remoting.Command {
	h, refusal := s.decodeSend(r)
	if refusal != nil {
		return refusal
	}
	if t := s.topics[h.topic]; t != nil {
		if want, got := t.messageType(), messageType(h.properties); want != got {
			return r.refuse(remoting.MessageIllegal, "TopicMessageType validate failed, the expected type is %s, but actual type is %s", want, got)
		}
	}
	return s.sendMessage(r)
}

// messageType returns the type of messages that the topic takes.
func (t *topic) messageType() string {
	if kind := t.attributes[typeAttribute]; kind != "" {
		return kind
	}
	return "NORMAL"
}

// messageType returns the type of a message by its properties. A batch has none of its own, whatever its members have.
func messageType(properties map[string]string) string {
	switch has := func(name string) bool { return properties[name] != "" }; {
	case properties[propertyTransaction] == "true":
		return "TRANSACTION"
	case has(propertyDelayLevel), has(propertyTimerDeliver), has(propertyTimerDelaySeconds), has(propertyTimerDelayMillis):
		return "DELAY"
	case has(propertyMessageGroup):
		return "FIFO"
	}
	return "NORMAL"
}

// endByProxy drops the end of a half message, unless the half message was checked through the proxy before, and responds with success
// either way (37).
func (s *Server) endByProxy(r *request) *remoting.Command {
	key := r.Ext["transactionId"]
	if _, checked := s.proxyChecks[key]; checked && !s.stopped {
		delete(s.proxyChecks, key)
		s.endTransaction(r)
	}
	return r.respond()
}
