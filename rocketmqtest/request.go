package rocketmqtest

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// handler handles a request with Server.mu held. It returns the response, or nil if there is none or it is sent later.
type handler func(s *Server, r *request) *remoting.Command

// request is a request of a client.
type request struct {
	*remoting.Command
	from         *session
	dropResponse bool // the response is not sent
}

// nameServerHandlers and brokerHandlers are the supported requests. Each family of requests has a file. A code that is in
// neither map gets the response NotSupported.
var nameServerHandlers = map[remoting.Code]handler{
	remoting.RouteOfTopic: (*Server).routeOfTopic,
	remoting.ClusterInfo:  (*Server).clusterInfo,

	remoting.AllTopics:          (*Server).allTopics,
	remoting.DeleteTopicInNames: (*Server).deleteTopicInNames,
}

// brokerHandlers are the requests that the broker supports, see nameServerHandlers.
var brokerHandlers = map[remoting.Code]handler{
	remoting.Heartbeat:        (*Server).heartbeat,
	remoting.UnregisterClient: (*Server).unregisterClient,
	remoting.ConsumerList:     (*Server).consumerList,

	remoting.ConsumerConnections: (*Server).consumerConnections,
	remoting.ProducerConnections: (*Server).producerConnections,
	remoting.GroupsOfTopic:       (*Server).groupsOfTopic,

	remoting.BrokerConfig:       (*Server).brokerConfig,
	remoting.UpdateBrokerConfig: (*Server).updateBrokerConfig,
	remoting.BrokerRuntime:      (*Server).brokerRuntime,

	remoting.SendMessage:      (*Server).sendMessage,
	remoting.SendMessageV2:    (*Server).sendMessage,
	remoting.SendBatchMessage: (*Server).sendMessage,

	remoting.EndTransaction: (*Server).endTransaction,
	remoting.ResumeCheck:    (*Server).resumeCheck,
	remoting.RecallMessage:  (*Server).recallMessage,

	remoting.PullMessage:     (*Server).pullMessage,
	remoting.SendMessageBack: (*Server).sendMessageBack,
	remoting.LockQueues:      (*Server).lockQueues,
	remoting.UnlockQueues:    (*Server).unlockQueues,

	remoting.QueryConsumerOffset:  (*Server).queryOffset,
	remoting.UpdateConsumerOffset: (*Server).updateOffset,
	remoting.AllConsumerOffsets:   (*Server).allConsumerOffsets,
	remoting.ResetGroup:           (*Server).resetGroup,
	remoting.MaxOffset:            (*Server).maxOffset,
	remoting.MinOffset:            (*Server).minOffset,
	remoting.SearchOffset:         (*Server).searchOffset,

	remoting.AllGroups:           (*Server).allGroups,
	remoting.MessageByID:         (*Server).messageByID,
	remoting.QueryMessage:        (*Server).queryMessage,
	remoting.UpdateTopic:         (*Server).updateTopic,
	remoting.DeleteTopicInBroker: (*Server).deleteTopic,
}

// receive handles a request, on the goroutine that reads the connection.
func (s *Server) receive(c *session, cmd *remoting.Command) {
	r := &request{Command: cmd, from: c}
	if hooks := s.hooks.Load(); hooks != nil {
		s.controlIncoming(r, *hooks)
		return
	}
	r.reply(s.handle(r))
}

// reply sends the response, unless there is none, it is to be dropped, or the request is one-way.
func (r *request) reply(answer *remoting.Command) {
	if answer != nil && !r.dropResponse && !r.Oneway() {
		r.from.send(answer)
	}
}

// handle calls the handler of a request and returns its response, or nil.
func (s *Server) handle(r *request) *remoting.Command {
	e := r.from.endpoint
	h := e.handlers[r.Code]
	if h == nil && e == s.nameServer && s.is4() {
		return nil // the name server of RocketMQ 4 doesn't respond
	}
	if h == nil {
		s.config.Logger.Warn("request code is not supported; the client gets an error", "code", r.Code)
		return r.Answer(remoting.NotSupported, fmt.Sprintf(" request type %d not supported", r.Code))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || r.from.generation != e.generation || s.stopped && e == s.broker { // its endpoint was stopped or restarted since
		return nil
	}
	if refusal := s.access(r); refusal != nil {
		return refusal
	}
	defer s.changed()
	if e == s.proxy {
		if refusal := s.proxyRefuses(r); refusal != nil {
			return refusal
		}
	}
	return h(s, r)
}

// respond returns a successful response with header fields, given as name, value, name, value.
func (r *request) respond(fields ...string) *remoting.Command {
	a := r.Answer(remoting.Success, "")
	if len(fields) > 0 {
		a.Ext = make(map[string]string, len(fields)/2)
		for i := 0; i+1 < len(fields); i += 2 {
			a.Ext[fields[i]] = fields[i+1]
		}
	}
	return a
}

// respondJSON returns a successful response with a JSON body.
func (r *request) respondJSON(v any) *remoting.Command {
	a := r.respond()
	body, err := json.Marshal(v)
	if err != nil {
		return r.Answer(remoting.SystemError, err.Error())
	}
	a.Body = body
	return a
}

// refuse returns a response with a code and a remark.
func (r *request) refuse(code remoting.Code, format string, args ...any) *remoting.Command {
	return r.Answer(code, fmt.Sprintf(format, args...))
}

// number returns a numeric header field, or 0 if it is missing or no number.
func (r *request) number(name string) int64 {
	n, _ := strconv.ParseInt(r.Ext[name], 10, 64)
	return n
}

// requireNumbers returns a refusal if one of the header fields is missing or no number, else nil.
func (r *request) requireNumbers(names ...string) *remoting.Command {
	for _, name := range names {
		if _, err := strconv.ParseInt(r.Ext[name], 10, 64); err != nil {
			return r.refuse(remoting.SystemError, badField, name, r.Ext[name])
		}
	}
	return nil
}

// optionalNumbers returns a refusal if one of the header fields is present and no number, else nil.
func (r *request) optionalNumbers(names ...string) *remoting.Command {
	for _, name := range names {
		if _, set := r.Ext[name]; set {
			if refusal := r.requireNumbers(name); refusal != nil {
				return refusal
			}
		}
	}
	return nil
}

// requireFields returns a refusal if one of the header fields is missing, else nil.
func (r *request) requireFields(names ...string) *remoting.Command {
	for _, name := range names {
		if _, set := r.Ext[name]; !set {
			return r.refuse(remoting.SystemError, badField, name, "")
		}
	}
	return nil
}

const (
	seeFAQ = "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."

	// badField replaces the Java stack traces in the responses of a real broker.
	badField = "the custom field <%s> is null or no number: %q"
)
