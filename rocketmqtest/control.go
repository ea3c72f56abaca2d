package rocketmqtest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Control adds a hook: fn decides what happens to each request that the name server or the broker receives, and to those
// that the broker sends (Request.FromBroker). If there are several hooks, the first in the order of addition that doesn't
// return Pass decides. The returned function removes the hook; a call of fn that runs already is not interrupted.
//
// Hooks run on the goroutines of the connections: concurrently for several connections, in order for each of them. A hook
// that blocks, blocks its connection. It may call any method of the server except Close.
func (s *Server) Control(fn func(r Request) Action) (remove func()) {
	h := &hook{fn}
	s.mu.Lock()
	defer s.mu.Unlock()
	var hooks []*hook
	if old := s.hooks.Load(); old != nil {
		hooks = slices.Clone(*old)
	}
	hooks = append(hooks, h)
	s.hooks.Store(&hooks)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		old := s.hooks.Load()
		if old == nil {
			return
		}
		if hooks := slices.DeleteFunc(slices.Clone(*old), func(other *hook) bool { return other == h }); len(hooks) > 0 {
			s.hooks.Store(&hooks)
		} else {
			s.hooks.Store(nil) // nothing to look at again
		}
	}
}

// hook is a function of Control, with an identity by which it is removed.
type hook struct{ fn func(Request) Action }

// Request is a request as a hook of [Server.Control] sees it. Maps and slices belong to the server: a hook must not change
// them.
type Request struct {
	// Code is the request code of the protocol.
	Code int
	// Name is RocketMQ's name of the code, such as "SEND_MESSAGE_V2", or "SEND_MESSAGE" for a send of rocketmq-client-go. It is
	// empty for an unknown code.
	Name string

	// FromBroker is true for requests from the broker to a client: CHECK_TRANSACTION_STATE, NOTIFY_CONSUMER_IDS_CHANGED.
	FromBroker bool

	// Client is the id of the client. It is empty before the first heartbeat of the connection, and on the name server.
	Client string
	// Remote is the client's end of the connection.
	Remote netip.AddrPort
	// Ext are the header fields, under their names on the wire.
	Ext map[string]string
	// Body is the body as it was sent.
	Body []byte

	// Group and Topic are those that the request refers to. They are empty for requests that refer to none.
	Group, Topic string
	// Key is the unique key of the message, which is also the id of its transaction. For a batch it is that of the first
	// message.
	Key string
	// Properties are the properties of the message in sends and check-backs. For a batch they are those of the first message.
	Properties map[string]string
}

// Action is what happens to a request: one of [Pass], [Respond], [Recode], [Drop], [DropResponse], [Duplicate], [ResetBefore],
// [ResetAfter], [Delay], [Reorder] and [HoldUntil].
type Action struct {
	kind   actionKind
	code   int
	remark string
	delay  time.Duration
	after  int
	until  <-chan struct{}
}

// actionKind distinguishes the actions.
type actionKind int

const (
	toPass actionKind = iota
	toRespond
	toRecode
	toDrop
	toDropResponse
	toDuplicate
	toResetBefore
	toResetAfter
	toHold
)

// Pass is the zero Action: the next hook decides, and without one the request is handled normally.
var Pass Action

// Respond sends a response with a code, such as 2 for SYSTEM_BUSY, and does not handle the request.
func Respond(code int, remark string) Action {
	return Action{kind: toRespond, code: code, remark: remark}
}

// Recode handles the request and gives a successful response another code and a remark: with 11, SLAVE_NOT_AVAILABLE, as a broker that
// has stored a message and has no slave for it.
func Recode(code int, remark string) Action {
	return Action{kind: toRecode, code: code, remark: remark}
}

// Drop loses the request before it is handled. The connection stays open.
func Drop() Action { return Action{kind: toDrop} }

// DropResponse handles the request and loses the response.
func DropResponse() Action { return Action{kind: toDropResponse} }

// Duplicate handles the request twice and sends the first response.
func Duplicate() Action { return Action{kind: toDuplicate} }

// ResetBefore resets the connection and does not handle the request.
func ResetBefore() Action { return Action{kind: toResetBefore} }

// ResetAfter handles the request and resets the connection instead of sending the response.
func ResetAfter() Action { return Action{kind: toResetAfter} }

// Delay handles the request after d, in real time. Other requests overtake it, also on its connection. Like a packet in the
// network, the request is handled even if its client has ended; Stop and Close lose it.
func Delay(d time.Duration) Action { return Action{kind: toHold, delay: d} }

// maxReorderDelay is how long Reorder waits for other requests.
const maxReorderDelay = time.Second

// Reorder handles the request after the next n requests of the same code, or after a second if fewer come.
func Reorder(n int) Action { return Action{kind: toHold, after: n, delay: maxReorderDelay} }

// HoldUntil handles the request when released is closed. If that doesn't happen, it is never handled.
func HoldUntil(released <-chan struct{}) Action { return Action{kind: toHold, until: released} }

// Once returns a hook for [Server.Control] that applies an action to the first request of a name, such as "END_TRANSACTION",
// and passes all others.
func Once(name string, a Action) func(Request) Action {
	var done atomic.Bool
	return func(r Request) Action {
		if r.Name == name && done.CompareAndSwap(false, true) {
			return a
		}
		return Pass
	}
}

// String returns the action in words, for logs.
func (a Action) String() string {
	switch a.kind {
	case toPass:
		return "pass"
	case toRespond:
		return fmt.Sprintf("respond %d", a.code)
	case toRecode:
		return fmt.Sprintf("handle and respond %d", a.code)
	case toDrop:
		return "drop"
	case toDropResponse:
		return "drop the response"
	case toDuplicate:
		return "duplicate"
	case toResetBefore:
		return "reset before"
	case toResetAfter:
		return "reset after"
	}
	switch {
	case a.after > 0:
		return fmt.Sprintf("after %d others", a.after)
	case a.until != nil:
		return "hold"
	}
	return fmt.Sprintf("delay by %v", a.delay)
}

// decide returns the action of the first hook that doesn't pass the request.
func decide(hooks []*hook, r Request) Action {
	for _, h := range hooks {
		if a := h.fn(r); a.kind != toPass {
			return a
		}
	}
	return Pass
}

// controlIncoming applies the hooks to a client's request.
func (s *Server) controlIncoming(r *request, hooks []*hook) {
	a := decide(hooks, s.view(r.from, r.Command, false))
	defer s.holds.passed(r.Code)
	switch a.kind {
	case toPass:
		r.reply(s.handle(r))
	case toRespond:
		r.reply(r.Answer(remoting.Code(a.code), a.remark))
	case toRecode:
		answer := s.handle(r)
		if answer != nil && answer.Code == remoting.Success {
			answer.Code, answer.Remark = remoting.Code(a.code), a.remark
		}
		r.reply(answer)
	case toDrop:
	case toDropResponse:
		r.dropResponse = true
		s.handle(r)
	case toDuplicate:
		again := &request{Command: r.Command, from: r.from, dropResponse: true}
		r.reply(s.handle(r))
		s.handle(again)
	case toResetBefore:
		r.from.close()
	case toResetAfter:
		r.dropResponse = true
		s.handle(r)
		r.from.close()
	case toHold:
		s.hold(r.from, r.Code, a, func() { r.reply(s.handle(r)) })
	}
}

// controlOutgoing applies the hooks to a request of the broker. It returns how often to write it, and whether to close the
// connection then.
func (s *Server) controlOutgoing(c *session, cmd *remoting.Command) (times int, last bool) {
	hooks := s.hooks.Load()
	if hooks == nil {
		return 1, false
	}
	a := decide(*hooks, s.view(c, cmd, true))
	defer s.holds.passed(cmd.Code)
	switch a.kind {
	case toRespond, toRecode, toDrop, toDropResponse: // there is no response
		return 0, false
	case toDuplicate:
		return 2, false
	case toResetBefore:
		return 0, true
	case toResetAfter:
		return 1, true
	case toHold:
		s.hold(c, cmd.Code, a, func() { c.enqueue(outgoing{cmd, true}) })
		return 0, false
	}
	return 1, false
}

// holds tracks the requests that hooks hold back.
type holds struct {
	count atomic.Int64
	mu    sync.Mutex
	after map[remoting.Code][]*afterHold
}

// afterHold is a request that waits for others of its code.
type afterHold struct {
	left     int
	released chan struct{}
}

// add returns a channel that is closed after n requests of the code. The held request itself is counted by passed too,
// hence n + 1.
func (h *holds) add(code remoting.Code, n int) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.after == nil {
		h.after = map[remoting.Code][]*afterHold{}
	}
	a := &afterHold{left: n + 1, released: make(chan struct{})}
	h.after[code] = append(h.after[code], a)
	return a.released
}

// passed counts a request of a code, whatever action was applied to it.
func (h *holds) passed(code remoting.Code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.after[code]) == 0 {
		return
	}
	h.after[code] = slices.DeleteFunc(h.after[code], func(a *afterHold) bool {
		if a.left--; a.left <= 0 {
			close(a.released)
		}
		return a.left <= 0
	})
	if len(h.after[code]) == 0 {
		delete(h.after, code)
	}
}

// hold calls do when the action's time has come, in a goroutine that Close waits for.
func (s *Server) hold(c *session, code remoting.Code, a Action, do func()) {
	released := a.until
	if a.after > 0 {
		released = s.holds.add(code, a.after)
	}
	count := func(n int64) {
		s.holds.count.Add(n)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed()
	}
	count(1)
	started := s.work.Go(func(ctx context.Context) {
		defer count(-1)
		var due <-chan time.Time
		if a.until == nil {
			t := time.NewTimer(a.delay)
			defer t.Stop()
			due = t.C
		}
		select {
		case <-due:
		case <-released:
		case <-ctx.Done():
			return
		}
		c.awaitOpen()
		do()
		select {
		case <-c.ended: // remove what the late request may have registered for a connection that has ended
			s.forget(c)
		default:
		}
	})
	if !started { // the server is closed
		count(-1)
	}
}

// view returns a request as hooks see it.
func (s *Server) view(c *session, cmd *remoting.Command, fromBroker bool) Request {
	s.mu.Lock()
	client := c.client
	s.mu.Unlock()
	v := Request{
		Code: int(cmd.Code), Name: codeNames[cmd.Code], FromBroker: fromBroker, Client: client, Remote: c.remote,
		Ext: cmd.Ext, Body: cmd.Body, Topic: cmd.Ext["topic"],
	}
	switch cmd.Code {
	case remoting.SendMessage, remoting.SendMessageV2, remoting.SendBatchMessage:
		h, refusal := s.decodeSend(&request{Command: cmd, from: c})
		if refusal != nil {
			break
		}
		v.Group, v.Topic, v.Properties = h.group, h.topic, h.properties
		if h.batch {
			if members, err := decodeBatch(cmd.Body); err == nil {
				maps.Copy(v.Properties, members[0].properties)
			}
		}
		v.Key = v.Properties[propertyUniqueKey]
	case remoting.EndTransaction:
		v.Group, v.Key = cmd.Ext["producerGroup"], cmd.Ext["transactionId"]
	case remoting.CheckTransactionState:
		v.Key = cmd.Ext["transactionId"]
		if records, err := remoting.DecodeRecords(cmd.Body); err == nil && len(records) > 0 {
			v.Topic, v.Properties = records[0].Topic, records[0].Properties
			v.Group = v.Properties[propertyProducerGroup]
		}
	case remoting.SendMessageBack:
		v.Group, v.Topic, v.Key = cmd.Ext["group"], cmd.Ext["originTopic"], cmd.Ext["originMsgId"]
	case remoting.LockQueues, remoting.UnlockQueues:
		var body struct {
			Group string `json:"consumerGroup"`
		}
		if json.Unmarshal(cmd.Body, &body) == nil {
			v.Group = body.Group
		}
	case remoting.Heartbeat:
		if h, err := decodeHeartbeat(cmd.Body); err == nil {
			v.Client = h.ClientID
		}
	default:
		if v.Group = cmd.Ext["consumerGroup"]; v.Group == "" {
			v.Group = cmd.Ext["producerGroup"]
		}
	}
	return v
}

// codeNames are RocketMQ's names of request codes.
var codeNames = map[remoting.Code]string{
	remoting.SendMessage:           "SEND_MESSAGE",
	remoting.PullMessage:           "PULL_MESSAGE",
	remoting.QueryConsumerOffset:   "QUERY_CONSUMER_OFFSET",
	remoting.UpdateConsumerOffset:  "UPDATE_CONSUMER_OFFSET",
	remoting.UpdateTopic:           "UPDATE_AND_CREATE_TOPIC",
	remoting.SearchOffset:          "SEARCH_OFFSET_BY_TIMESTAMP",
	remoting.MaxOffset:             "GET_MAX_OFFSET",
	remoting.MinOffset:             "GET_MIN_OFFSET",
	remoting.Heartbeat:             "HEART_BEAT",
	remoting.UnregisterClient:      "UNREGISTER_CLIENT",
	remoting.SendMessageBack:       "CONSUMER_SEND_MSG_BACK",
	remoting.EndTransaction:        "END_TRANSACTION",
	remoting.ConsumerList:          "GET_CONSUMER_LIST_BY_GROUP",
	remoting.CheckTransactionState: "CHECK_TRANSACTION_STATE",
	remoting.ConsumersChanged:      "NOTIFY_CONSUMER_IDS_CHANGED",
	remoting.LockQueues:            "LOCK_BATCH_MQ",
	remoting.UnlockQueues:          "UNLOCK_BATCH_MQ",
	remoting.AllConsumerOffsets:    "GET_ALL_CONSUMER_OFFSET",
	remoting.RouteOfTopic:          "GET_ROUTEINFO_BY_TOPIC",
	remoting.ClusterInfo:           "GET_BROKER_CLUSTER_INFO",
	remoting.DeleteTopicInBroker:   "DELETE_TOPIC_IN_BROKER",
	remoting.DeleteTopicInNames:    "DELETE_TOPIC_IN_NAMESRV",
	remoting.SendMessageV2:         "SEND_MESSAGE_V2",
	remoting.SendBatchMessage:      "SEND_BATCH_MESSAGE",
	remoting.ResumeCheck:           "RESUME_CHECK_HALF_MESSAGE",
	remoting.RecallMessage:         "RECALL_MESSAGE",
}
