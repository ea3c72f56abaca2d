package rocketmq

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/groupmember"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// handleRequest implements connUser: it handles changes of the group and what operators request with RocketMQ's tools.
func (o *ownConsumer) handleRequest(b *brokerConn, conn *remoting.Conn, request *remoting.Command) *remoting.Command {
	switch request.Code {
	case remoting.ConsumersChanged:
		o.member.Rebalance()
		return request.Answer(remoting.Success, "")
	case remoting.ResetOffset:
		return o.resetOffset(b, request)
	case remoting.ConsumerStatus:
		return o.consumerStatus(request)
	case remoting.RunningInfo:
		return o.runningInfo(request)
	case remoting.ConsumeDirectly:
		return o.consumeDirectly(b, conn, request)
	}
	return request.Answer(remoting.NotSupported, "this client doesn't handle the request")
}

// resetTarget is a queue with its new offset in the body of a ResetOffset request: brokers in Java write objects as keys of objects,
// which isn't JSON, and for other clients a list.
var resetTarget = regexp.MustCompile(`\{"brokerName":"([^"]{1,255})","queueId":(\d{1,9}),"topic":"([^"]{1,255})"\}:(-?\d{1,19})`)

// maxReset is the size of the longest list of new offsets that is read, in bytes: that of a topic with 65,536 queues has about as many.
const maxReset = 8 << 20

// resetOffset continues at other offsets (220). Brokers don't expect a response.
func (o *ownConsumer) resetOffset(b *brokerConn, request *remoting.Command) *remoting.Command {
	if len(request.Body) > maxReset {
		return request.Answer(remoting.SystemError, fmt.Sprintf("offsets of %d bytes, want at most %d", len(request.Body), maxReset))
	}
	moved := 0
	move := func(topic, broker string, queue int, offset int64) {
		if o.member.Move(groupmember.Queue{Topic: topic, Broker: broker, ID: queue}, offset) {
			moved++
		}
	}
	var list struct {
		Offsets []struct {
			Topic  string `json:"topic"`
			Broker string `json:"brokerName"`
			Queue  int    `json:"queueId"`
			Offset int64  `json:"offset"`
		} `json:"offsetTable"`
	}
	if json.Unmarshal(request.Body, &list) == nil {
		for _, t := range list.Offsets {
			move(t.Topic, t.Broker, t.Queue, t.Offset)
		}
	} else {
		for _, m := range resetTarget.FindAllSubmatch(request.Body, -1) {
			queue, err := strconv.Atoi(string(m[2]))
			if err != nil {
				continue
			}
			if offset, err := strconv.ParseInt(string(m[4]), 10, 64); err == nil {
				move(string(m[3]), string(m[1]), queue, offset)
			}
		}
	}
	o.consumer.client.log.Warn("an operator has reset the offsets of the group", keyGroup, o.consumer.subscription.Group,
		keyTopic, request.Ext["topic"], keyBroker, b.name, "queues", moved)
	return request.Answer(remoting.Success, "")
}

// javaMap encodes an object whose keys are queues, as Java brokers and tools write and read it.
func javaMap(positions []groupmember.Position, value func(groupmember.Position) string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range positions {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"brokerName":%s,"queueId":%d,"topic":%s}:%s`, quoted(p.Broker), p.ID, quoted(p.Topic), value(p))
	}
	b.WriteByte('}')
	return b.String()
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings can't fail
	}
	return string(b)
}

// consumerStatus responds with the offsets of the consumer's queues (221).
func (o *ownConsumer) consumerStatus(request *remoting.Command) *remoting.Command {
	var positions []groupmember.Position
	for _, p := range o.member.Positions() {
		if topic := request.Ext["topic"]; topic == "" || topic == p.Topic {
			positions = append(positions, p)
		}
	}
	answer := request.Answer(remoting.Success, "")
	answer.Body = []byte(`{"messageQueueTable":` + javaMap(positions, func(p groupmember.Position) string { return strconv.FormatInt(p.Offset, 10) }) + `}`)
	return answer
}

// runningInfo responds with what the consumer does (307), with the stacks of all goroutines if they are requested.
func (o *ownConsumer) runningInfo(request *remoting.Command) *remoting.Command {
	if id := request.Ext["clientId"]; id != "" && id != o.clientID {
		return request.Answer(remoting.SystemError, "no consumer with this client id is here")
	}
	properties, err := json.Marshal(map[string]string{
		"PROP_CLIENT_VERSION": "rocketflow", "PROP_CONSUME_TYPE": "CONSUME_PASSIVELY", "PROP_CONSUMER_START_TIMESTAMP": strconv.FormatInt(o.version, 10),
		"PROP_CONSUME_ORDERLY": strconv.FormatBool(o.consumer.subscription.Serial), "PROP_THREADPOOL_CORE_SIZE": strconv.Itoa(o.consumer.subscription.MaxInFlight),
	})
	if err != nil {
		panic(err) // strings can't fail
	}
	subscriptions, err := json.Marshal(o.subscriptions())
	if err != nil {
		panic(err) // strings and numbers can't fail
	}
	queues := javaMap(o.member.Positions(), func(p groupmember.Position) string {
		return fmt.Sprintf(`{"commitOffset":%d,"cachedMsgMinOffset":%d,"cachedMsgMaxOffset":%d,"cachedMsgCount":%d,"locked":%t,"droped":false}`,
			p.Offset, p.Offset, max(p.Next-1, 0), p.Held, p.Locked)
	})
	var stacks []byte
	if request.Ext["jstackEnable"] == "true" {
		stacks = make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
	}
	answer := request.Answer(remoting.Success, "")
	answer.Body = fmt.Appendf(nil, `{"properties":%s,"subscriptionSet":%s,"mqTable":%s,"statusTable":{},"userConsumerInfo":{},"jstack":%s}`,
		properties, subscriptions, queues, quoted(string(stacks)))
	return answer
}

// maxDirect is how many messages a consumer handles at once at operators' requests.
const maxDirect = 16

// consumeDirectly calls the handler for one message, which the request contains, at an operator's request (309), and responds with the
// result. The message isn't settled by it, nor held after an error.
func (o *ownConsumer) consumeDirectly(b *brokerConn, conn *remoting.Conn, request *remoting.Command) *remoting.Command {
	if id := request.Ext["clientId"]; id != "" && id != o.clientID {
		return request.Answer(remoting.SystemError, "no consumer with this client id is here")
	}
	records, err := remoting.DecodeFirstRecords(request.Body, 2)
	if err != nil || len(records) != 1 {
		return request.Answer(remoting.SystemError, printable.Line(fmt.Sprintf("want one message, got %d or more: %v", len(records), err), 500))
	}
	select {
	case o.direct <- struct{}{}:
	default:
		return request.Answer(remoting.SystemBusy, fmt.Sprintf("the consumer handles %d messages directly", maxDirect))
	}
	r, k := records[0], o.consumer
	broker := cmp.Or(request.Ext["brokerName"], b.name)
	started := k.work.Go(func(ctx context.Context) {
		defer func() { <-o.direct }()
		select {
		case k.slots <- struct{}{}:
			defer func() { <-k.slots }()
		case <-ctx.Done():
			return // the consumer stops
		}
		m := groupmember.Message{Queue: groupmember.Queue{Topic: r.Topic, Broker: broker, ID: r.Queue}, Record: r}
		d, release, ok := k.unpackRecord(ctx.Done(), m)
		defer release()
		if !ok {
			return
		}
		k.client.log.Info("an operator has the consumer handle a message", keyGroup, k.subscription.Group, keyTopic, d.Topic, keyMessageID, d.ID)
		began := time.Now()
		result, remark := "CR_SUCCESS", ""
		if err := k.call(ctx, d); err != nil {
			result, remark = "CR_THROW_EXCEPTION", printable.Line(err.Error(), 500)
			k.reportFailed(d, err)
		}
		answer := request.Answer(remoting.Success, "")
		answer.Body = fmt.Appendf(nil, `{"autoCommit":true,"consumeResult":%s,"order":%t,"remark":%s,"spentTimeMills":%d}`,
			quoted(result), k.subscription.Serial, quoted(remark), time.Since(began).Milliseconds())
		_ = conn.Respond(answer) // the connection has ended: the operator can request it again
	})
	if !started {
		<-o.direct
		return request.Answer(remoting.SystemError, "the consumer stops")
	}
	return nil
}
