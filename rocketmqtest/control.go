package rocketmqtest

import (
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

// Control has fn decide what becomes of each request, those to the name server too, and of those that the broker sends
// (Request.FromBroker). Of several hooks the first that doesn't say Pass decides, in the order of their adding. The func
// returned removes the hook; it may run once more where it runs already.
//
// Hooks are called on the goroutines of the connections, several at a time, each in the order of its connection. A hook
// that blocks blocks its connection. It may call the server's methods but Close, which waits for it.
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

type hook struct{ fn func(Request) Action }

// Request is what a hook sees. What it has by reference is the server's: not to be changed.
type Request struct {
	Code int
	Name string // of the code, as RocketMQ has it: "SEND_MESSAGE_V2"; "" where it isn't known

	// FromBroker is set for what the broker sends to a client: "CHECK_TRANSACTION_STATE", "NOTIFY_CONSUMER_IDS_CHANGED".
	FromBroker bool

	Client string // the client's id; "" before the connection's first heartbeat, and on the name server
	Remote netip.AddrPort
	Ext    map[string]string // the fields of the header
	Body   []byte

	// What the request is about, where it is of such a kind. Of a batch this is the first message's.
	Group, Topic string
	Key          string            // the message's unique key, which is also the id of its transaction
	Properties   map[string]string // of sends and checks
}

// Action is what becomes of a request.
type Action struct {
	kind   actionKind
	code   int
	remark string
	delay  time.Duration
	after  int
	until  <-chan struct{}
}

type actionKind int

const (
	toPass actionKind = iota
	toRespond
	toDrop
	toDropResponse
	toDuplicate
	toResetBefore
	toResetAfter
	toHold
)

// Pass is the zero Action: nothing special, or the next hook's decision.
var Pass Action

// Respond answers the request with a code, say 2 for SYSTEM_BUSY, instead of having it handled.
func Respond(code int, remark string) Action {
	return Action{kind: toRespond, code: code, remark: remark}
}

// Drop loses the request before the broker sees it. The connection lives on.
func Drop() Action { return Action{kind: toDrop} }

// DropResponse has the request handled and loses the answer.
func DropResponse() Action { return Action{kind: toDropResponse} }

// Duplicate has the request handled twice; the first answer goes back.
func Duplicate() Action { return Action{kind: toDuplicate} }

// ResetBefore resets the connection instead of handling the request.
func ResetBefore() Action { return Action{kind: toResetBefore} }

// ResetAfter resets the connection once the request is handled, instead of answering it.
func ResetAfter() Action { return Action{kind: toResetAfter} }

// Delay has the request handled after d of the machine's time. Others overtake it, those of its connection too. Like one
// that is still in the network it outlives its client's end, but neither Stop nor Close.
func Delay(d time.Duration) Action { return Action{kind: toHold, delay: d} }

// maxAfter is how long After waits for other requests.
const maxAfter = time.Second

// Reorder has the request handled after the next n of the same code, or after a second if they don't come.
func Reorder(n int) Action { return Action{kind: toHold, after: n, delay: maxAfter} }

// HoldUntil has the request handled once released is closed, else never.
func HoldUntil(released <-chan struct{}) Action { return Action{kind: toHold, until: released} }

// Once is a hook that does something to the first request of a name.
func Once(name string, a Action) func(Request) Action {
	var done atomic.Bool
	return func(r Request) Action {
		if r.Name == name && done.CompareAndSwap(false, true) {
			return a
		}
		return Pass
	}
}

func (a Action) String() string {
	switch a.kind {
	case toPass:
		return "pass"
	case toRespond:
		return fmt.Sprintf("answer %d", a.code)
	case toDrop:
		return "drop"
	case toDropResponse:
		return "drop the answer"
	case toDuplicate:
		return "duplicate"
	case toResetBefore:
		return "cut before"
	case toResetAfter:
		return "cut after"
	}
	switch {
	case a.after > 0:
		return fmt.Sprintf("after %d others", a.after)
	case a.until != nil:
		return "hold"
	}
	return fmt.Sprintf("delay by %v", a.delay)
}

func decide(hooks []*hook, r Request) Action {
	for _, h := range hooks {
		if a := h.fn(r); a.kind != toPass {
			return a
		}
	}
	return Pass
}

// controlIncoming does with a client's request what the hooks say.
func (s *Server) controlIncoming(r *request, hooks []*hook) {
	a := decide(hooks, s.view(r.from, r.Command, false))
	defer s.holds.passed(r.Code)
	switch a.kind {
	case toPass:
		r.reply(s.handle(r))
	case toRespond:
		r.reply(r.Answer(remoting.Code(a.code), a.remark))
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

// controlOutgoing tells how often a request of the broker's is to be written, as the hooks say, and whether the
// connection ends with it.
func (s *Server) controlOutgoing(c *session, cmd *remoting.Command) (times int, last bool) {
	hooks := s.hooks.Load()
	if hooks == nil {
		return 1, false
	}
	a := decide(*hooks, s.view(c, cmd, true))
	defer s.holds.passed(cmd.Code)
	switch a.kind {
	case toRespond, toDrop, toDropResponse: // nobody waits for an answer
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

// holds are the requests that are held back.
type holds struct {
	count atomic.Int64
	mu    sync.Mutex
	after map[remoting.Code][]*afterHold
}

// afterHold waits for other requests of its code.
type afterHold struct {
	left     int
	released chan struct{}
}

// add makes a hold that n calls of passed release. The request that is held is itself passed over once.
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

// passed counts a request that was handled, or whatever became of it.
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

// hold does something when the action says, on a goroutine that Close waits for.
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
	s.running.Go(func() {
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
		case <-s.closing:
			return
		}
		c.awaitOpen()
		do()
		select {
		case <-c.ended: // what it may have brought in for the connection goes again
			s.forget(c)
		default:
		}
	})
}

// view shows a hook a request.
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
		h, refusal := decodeSend(&request{Command: cmd, from: c})
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
	remoting.RouteOfTopic:          "GET_ROUTEINFO_BY_TOPIC",
	remoting.ClusterInfo:           "GET_BROKER_CLUSTER_INFO",
	remoting.DeleteTopicInBroker:   "DELETE_TOPIC_IN_BROKER",
	remoting.DeleteTopicInNames:    "DELETE_TOPIC_IN_NAMESRV",
	remoting.SendMessageV2:         "SEND_MESSAGE_V2",
	remoting.SendBatchMessage:      "SEND_BATCH_MESSAGE",
	remoting.ResumeCheck:           "RESUME_CHECK_HALF_MESSAGE",
	remoting.RecallMessage:         "RECALL_MESSAGE",
}
