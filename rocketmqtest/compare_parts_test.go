package rocketmqtest_test

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// onPurpose says of an answer why it isn't the real broker's. It is told in the package's documentation too.
var onPurpose = map[string]string{}

// parts are the scripts that both brokers are asked.
var parts = []struct {
	name string
	run  func(*conversation)
}{
	{"Topics", askTopics},
	{"Sends", askSends},
	{"Pulls", askPulls},
	{"Offsets", askOffsets},
	{"Groups", askGroups},
	{"Locks", askLocks},
	{"SendBack", askSendBack},
	{"Lookups", askLookups},
	{"Transactions", askTransactions},
	{"Timers", askTimers},
}

func askTopics(c *conversation) {
	route := func(label, topic string) {
		c.askOn(c.names, label, remoting.RouteOfTopic, fields{"topic": topic})
	}
	route("route of an unknown topic", c.name("nowhere"))
	c.askOn(c.names, "route without a topic", remoting.RouteOfTopic, nil)
	route("route of the pattern of topics", "TBW102")
	c.askOn(c.names, "an unknown request to the name server", 99999, nil)
	c.ask("an unknown request to the broker", 99999, nil)
	c.askOn(c.names, "cluster", remoting.ClusterInfo, nil)
	c.ask("a route of the broker", remoting.RouteOfTopic, fields{"topic": c.name("nowhere")})

	topic := c.topic("topics", 2, "attributes", "+message.type=TRANSACTION")
	route("route", topic)
	make := fields{"topic": topic, "readQueueNums": "2", "writeQueueNums": "2", "perm": "6", "defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
	c.ask("create", remoting.UpdateTopic, make.with("topic", c.name("topics-more")))
	c.ask("create again", remoting.UpdateTopic, make)
	more := make.with("readQueueNums", "3", "writeQueueNums", "4")
	c.ask("create with more queues", remoting.UpdateTopic, more)
	// RocketMQ tells its name servers of a changed topic with the version of all topics, which they take for known where
	// another topic that was made meanwhile, as each new group's for retries is, came before it with the same version.
	// Then only another change of this topic helps.
	asked := time.Now()
	c.until("route of four queues", func() bool {
		if strings.Contains(string(c.call(c.names, remoting.RouteOfTopic, fields{"topic": topic}).Body), `"writeQueueNums":4`) {
			return true
		}
		if time.Since(asked) > time.Second {
			c.call(c.one, remoting.UpdateTopic, make)
			c.call(c.one, remoting.UpdateTopic, more)
			asked = time.Now()
		}
		return false
	})
	route("route with more queues", topic)
	c.ask("create without a name", remoting.UpdateTopic, make.with("topic", ""))
	c.ask("create with a blank name", remoting.UpdateTopic, make.with("topic", " "))
	c.ask("create with an illegal name", remoting.UpdateTopic, make.with("topic", "orders.new"))
	c.ask("create with a long name", remoting.UpdateTopic, make.with("topic", strings.Repeat("x", 128)))
	for _, name := range []string{"TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "rmq_sys_wheel_timer", "OFFSET_MOVED_EVENT", "BenchmarkTest", "SELF_TEST_TOPIC", "DefaultCluster", "broker-a", "rmq_sys_x"} {
		c.ask("create "+name, remoting.UpdateTopic, make.with("topic", name))
	}
	c.ask("create without queues", remoting.UpdateTopic, make.with("topic", c.name("topics-none"), "readQueueNums", ""))
	c.ask("create with no number of queues", remoting.UpdateTopic, make.with("topic", c.name("topics-nan"), "readQueueNums", "x"))
	c.ask("create without a permission", remoting.UpdateTopic, make.with("topic", c.name("topics-perm"), "perm", ""))
	c.ask("create without a filter type", remoting.UpdateTopic, make.with("topic", c.name("topics-filter"), "topicFilterType", ""))
	c.ask("create with an unknown filter type", remoting.UpdateTopic, make.with("topic", c.name("topics-filter"), "topicFilterType", "X"))
	c.ask("create without a default topic", remoting.UpdateTopic, make.with("topic", c.name("topics-default"), "defaultTopic", ""))
	c.ask("create with an unknown attribute", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+colour=red"))
	c.ask("create with an unknown type", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+message.type=PURPLE"))
	c.ask("create with attributes of no form", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "message.type=NORMAL"))
	c.ask("create with the type MIXED", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+message.type=MIXED"))

	c.ask("delete", remoting.DeleteTopicInBroker, fields{"topic": topic})
	c.askOn(c.names, "delete at the name server", remoting.DeleteTopicInNames, fields{"topic": topic})
	route("route of what was deleted", topic)
	c.ask("delete again", remoting.DeleteTopicInBroker, fields{"topic": topic})
	c.askOn(c.names, "delete again at the name server", remoting.DeleteTopicInNames, fields{"topic": topic})
	c.ask("delete a blank name", remoting.DeleteTopicInBroker, fields{"topic": " "})
	c.ask("delete a system topic", remoting.DeleteTopicInBroker, fields{"topic": "TBW102"})
	c.ask("delete without a name", remoting.DeleteTopicInBroker, nil)
	c.askOn(c.names, "delete without a name at the name server", remoting.DeleteTopicInNames, nil)
}

func sending(topic string, queue int) fields {
	return fields{"producerGroup": "producers", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": strconv.Itoa(queue),
		"sysFlag": "0", "bornTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "flag": "0", "properties": "UNIQ_KEY\x01K\x02", "reconsumeTimes": "0", "unitMode": "false", "maxReconsumeTimes": "0", "batch": "false"}
}

var shortNames = map[string]string{"producerGroup": "a", "topic": "b", "defaultTopic": "c", "defaultTopicQueueNums": "d", "queueId": "e", "sysFlag": "f",
	"bornTimestamp": "g", "flag": "h", "properties": "i", "reconsumeTimes": "j", "unitMode": "k", "maxReconsumeTimes": "l", "batch": "m"}

func (f fields) short() fields {
	s := fields{}
	for name, value := range f {
		s[shortNames[name]] = value
	}
	return s
}

// member encodes a message of a batch.
func member(body, properties string) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, uint32(4+4+4+4+4+len(body)+2+len(properties)))
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, 7)
	b = be.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	b = be.AppendUint16(b, uint16(len(properties)))
	return append(b, properties...)
}

func askSends(c *conversation) {
	topic := c.topic("sends", 2)
	send := sending(topic, 0)
	body := []byte("hello")
	c.ask("send", remoting.SendMessage, send, body...)
	c.ask("send in short names", remoting.SendMessageV2, send.short(), body...)
	c.ask("send a second time", remoting.SendMessage, send, body...)
	c.ask("send without properties", remoting.SendMessage, send.with("properties", ""), body...)
	c.ask("send with a tag and a key", remoting.SendMessage, send.with("properties", "UNIQ_KEY\x01K\x02TAGS\x01t\x02KEYS\x01k1 k2\x02colour\x01red\x02"), body...)
	c.ask("send an empty body", remoting.SendMessage, send)
	c.ask("send to any queue", remoting.SendMessage, send.with("topic", c.topic("sends-one", 1), "queueId", "-1"), body...)
	c.ask("send to a queue beyond", remoting.SendMessage, send.with("queueId", "2"), body...)
	c.ask("send to an unknown topic", remoting.SendMessage, send.with("topic", c.name("nowhere")), body...)
	c.ask("send to an illegal topic", remoting.SendMessage, send.with("topic", "orders.new"), body...)
	c.ask("send to a blank topic", remoting.SendMessage, send.with("topic", " "), body...)
	c.ask("send to a long topic", remoting.SendMessage, send.with("topic", strings.Repeat("x", 128)), body...)
	// Not to rmq_sys_wheel_timer: a real broker takes it, and its timers stand still from then on.
	for _, name := range []string{"TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "OFFSET_MOVED_EVENT", "rmq_sys_x"} {
		c.ask("send to "+name, remoting.SendMessage, send.with("topic", name), body...)
	}
	for _, missing := range []string{"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch"} {
		c.ask("send without "+missing, remoting.SendMessage, send.with(missing, ""), body...)
		c.ask("send in short names without "+missing, remoting.SendMessageV2, send.with(missing, "").short(), body...)
	}
	for _, number := range []string{"defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag", "reconsumeTimes", "maxReconsumeTimes"} {
		c.ask("send with no number for "+number, remoting.SendMessage, send.with(number, "x"), body...)
		c.ask("send in short names with no number for "+number, remoting.SendMessageV2, send.with(number, "x").short(), body...)
	}
	c.ask("send the largest body", remoting.SendMessage, send, make([]byte, 2<<20)...)
	c.ask("send a larger body", remoting.SendMessage, send, make([]byte, 2<<20+1)...)
	c.ask("send many properties", remoting.SendMessage, send.with("properties", "p\x01"+strings.Repeat("x", 32700)+"\x02"), body...)
	c.ask("send too many properties", remoting.SendMessage, send.with("properties", "p\x01"+strings.Repeat("x", 33000)+"\x02"), body...)
	c.ask("send compressed", remoting.SendMessage, send.with("sysFlag", "1"), body...)

	readOnly := c.topic("sends-read-only", 1, "perm", "4")
	c.ask("send to what may only be read", remoting.SendMessage, send.with("topic", readOnly), body...)

	batch := c.topic("sends-batch", 1)
	in := sending(batch, 0).with("batch", "true", "properties", "colour\x01red\x02")
	both := append(member("one", "UNIQ_KEY\x01K1\x02TAGS\x01t\x02"), member("two", "UNIQ_KEY\x01K2\x02")...)
	c.ask("send a batch", remoting.SendBatchMessage, in.short(), both...)
	c.ask("send a batch as one message", remoting.SendMessageV2, in.short(), both...)
	c.stored(batch, 0, 4)
	c.ask("pull the batch", remoting.PullMessage, pulling("puller-"+c.id, batch, 0))
	c.ask("send an empty batch", remoting.SendBatchMessage, in.short())
	c.ask("send a batch cut short", remoting.SendBatchMessage, in.short(), both[:len(both)-3]...)
	c.ask("send a batch of no batch", remoting.SendBatchMessage, in.short(), []byte("not a batch at all, but long enough")...)
	c.ask("send a batch without the flag", remoting.SendBatchMessage, in.with("batch", "false").short(), both...)

	group := c.name("group")
	c.ask("send to the retries of an unknown group", remoting.SendMessage, send.with("topic", "%RETRY%"+group), body...)
	c.ask("send to the dead letters of an unknown group", remoting.SendMessage, send.with("topic", "%DLQ%"+group), body...)
	c.heartbeat(c.one, c.clientOne, `{"clientID":"CLIENT","producerDataSet":[],"consumerDataSet":[{"groupName":"`+group+`","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[],"unitMode":false}]}`)
	c.ask("send to retries", remoting.SendMessage, send.with("topic", "%RETRY%"+group), body...)
	c.ask("send to retries once more", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "3", "maxReconsumeTimes", "16"), body...)
	c.ask("send to retries too often", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "17", "maxReconsumeTimes", "16"), body...)
	c.ask("send to retries as often as can be", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "16", "maxReconsumeTimes", "16"), body...)
	c.ask("send to retries too often by default", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "17", "maxReconsumeTimes", ""), body...)
	c.ask("send to dead letters", remoting.SendMessage, send.with("topic", "%DLQ%"+group), body...)
	c.ask("send to a dead letter queue beyond", remoting.SendMessage, send.with("topic", "%DLQ%"+group, "queueId", "3"), body...)
	c.askOn(c.names, "route of retries", remoting.RouteOfTopic, fields{"topic": "%RETRY%" + group})
}

func askTransactions(c *conversation) {
	topic, group := c.topic("transactions", 1), c.name("transactions")
	var position int64
	half := func(label string) fields {
		a := c.ask(label, remoting.SendMessage, sending(topic, 0).with("producerGroup", group, "sysFlag", "4", "properties", "UNIQ_KEY\x01"+strings.ReplaceAll(label, " ", "_")+"\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02colour\x01red\x02"), []byte(label)...)
		c.exchanges[len(c.exchanges)-1].answer = halfOffset.ReplaceAllString(c.exchanges[len(c.exchanges)-1].answer, "queueOffset=N")
		if a.Code != 0 {
			c.t.Fatalf("%s: %v", label, a.Err())
		}
		var err error
		if _, position, err = remoting.ParseOffsetID(a.Ext["msgId"]); err != nil {
			c.t.Fatal(err)
		}
		return fields{"producerGroup": group, "tranStateTableOffset": a.Ext["queueOffset"], "commitLogOffset": strconv.FormatInt(position, 10), "commitOrRollback": "8",
			"fromTransactionCheck": "false", "msgId": a.Ext["transactionId"], "transactionId": a.Ext["transactionId"]}
	}
	c.call(c.one, remoting.SendMessage, sending(c.topic("transactions-before", 1), 0), []byte("so that no position is 0")...)
	end := half("half")
	c.ask("commit by another group", remoting.EndTransaction, end.with("producerGroup", "others"))
	c.ask("commit with a wrong queue offset", remoting.EndTransaction, end.with("tranStateTableOffset", "99999999"))
	c.ask("commit with a wrong position", remoting.EndTransaction, end.with("commitLogOffset", "999999999999"))
	c.ask("commit with a position in the middle", remoting.EndTransaction, end.with("commitLogOffset", strconv.FormatInt(position+1, 10)))
	for _, missing := range []string{"producerGroup", "tranStateTableOffset", "commitLogOffset", "commitOrRollback", "fromTransactionCheck", "msgId", "transactionId"} {
		if missing != "fromTransactionCheck" && missing != "msgId" && missing != "transactionId" {
			c.ask("end without "+missing, remoting.EndTransaction, end.with(missing, ""))
		}
	}
	c.ask("end with no number", remoting.EndTransaction, end.with("commitOrRollback", "x"))
	c.ask("commit", remoting.EndTransaction, end)
	c.ask("commit twice", remoting.EndTransaction, end)
	c.ask("rollback after the commit", remoting.EndTransaction, end.with("commitOrRollback", "12"))
	c.ask("rollback by another group", remoting.EndTransaction, end.with("commitOrRollback", "12", "producerGroup", "others"))
	c.ask("rollback with a wrong position", remoting.EndTransaction, end.with("commitOrRollback", "12", "commitLogOffset", "999999999999"))
	back := half("half to roll back")
	c.ask("roll back", remoting.EndTransaction, back.with("commitOrRollback", "12"))
	c.ask("commit after the rollback", remoting.EndTransaction, back)
	c.ask("commit as a check does", remoting.EndTransaction, half("half to check").with("fromTransactionCheck", "true"))
	c.stored(topic, 0, 4)
	c.ask("pull what was committed", remoting.PullMessage, pulling(c.name("transactions-reader"), topic, 0))
	c.ask("half to an unknown topic", remoting.SendMessage, sending(c.name("nowhere"), 0).with("sysFlag", "4", "properties", "UNIQ_KEY\x01K\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02"))
	c.ask("half to a queue beyond", remoting.SendMessage, sending(topic, 9).with("sysFlag", "4", "properties", "UNIQ_KEY\x01K\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02"))
}

func askTimers(c *conversation) {
	topic := c.topic("timers", 1)
	send := func(label string, properties ...string) *remoting.Command {
		p := "UNIQ_KEY\x01" + strings.ReplaceAll(label, " ", "_") + "\x02"
		for i := 0; i < len(properties); i += 2 {
			p += properties[i] + "\x01" + properties[i+1] + "\x02"
		}
		a := c.ask(label, remoting.SendMessage, sending(topic, 0).with("properties", p), []byte(label)...)
		last := &c.exchanges[len(c.exchanges)-1]
		last.answer = recallHandle.ReplaceAllString(last.answer, "recallHandle=HANDLE")
		if label != "timer in the past" && label != "delay level 0" && label != "delay level below" && label != "timer now" && label != "cloud's timer" {
			last.answer = halfOffset.ReplaceAllString(last.answer, "queueOffset=N")
		}
		return a
	}
	in := func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).UnixMilli(), 10) }
	send("timer in the past", "TIMER_DELIVER_MS", in(-time.Hour))
	send("timer", "TIMER_DELIVER_MS", in(200*time.Millisecond))
	c.stored(topic, 0, 2)
	send("timer by seconds", "TIMER_DELAY_SEC", "1")
	c.stored(topic, 0, 3)
	send("timer by milliseconds", "TIMER_DELAY_MS", "300")
	c.stored(topic, 0, 4)
	send("timer that is none", "TIMER_DELIVER_MS", "soon")
	send("timer of no seconds", "TIMER_DELAY_SEC", "soon")
	send("timer of no milliseconds", "TIMER_DELAY_MS", "soon")
	send("timer beyond the most", "TIMER_DELIVER_MS", in(73*time.Hour))
	send("timer of seconds beyond the most", "TIMER_DELAY_SEC", "300000")
	send("timer and a delay level", "TIMER_DELIVER_MS", in(time.Hour), "DELAY", "1")
	c.stored(topic, 0, 5)
	send("delay level 1", "DELAY", "1")
	c.stored(topic, 0, 6)
	send("delay level 0", "DELAY", "0")
	send("delay level below", "DELAY", "-1")
	send("delay level beyond", "DELAY", "99")
	send("delay level that is none", "DELAY", "x")
	send("cloud's timer", "__STARTDELIVERTIME", in(time.Hour))
	send("delete in the past", "TIMER_DELIVER_MS", in(-time.Hour), "TIMER_DEL_UNIQKEY", topic+"+none")
	send("delete", "TIMER_DELIVER_MS", in(time.Hour), "TIMER_DEL_UNIQKEY", topic+"+none")
	send("delete without an instant", "TIMER_DEL_UNIQKEY", topic+"+none")
	c.until("what came", func() bool {
		a := c.call(c.one, remoting.MaxOffset, fields{"topic": topic, "queueId": "0"})
		n, err := strconv.Atoi(a.Ext["offset"])
		return err == nil && n >= 9
	})
	c.ask("pull", remoting.PullMessage, pulling(c.name("timers-reader"), topic, 0))

	h := send("timer to recall", "TIMER_DELIVER_MS", in(time.Hour)).Ext["recallHandle"]
	recall := fields{"topic": topic, "producerGroup": "producers", "recallHandle": h}
	c.ask("recall", remoting.RecallMessage, recall)
	c.ask("recall again", remoting.RecallMessage, recall)
	c.ask("recall from another topic", remoting.RecallMessage, recall.with("topic", c.topic("timers-other", 1)))
	c.ask("recall from an unknown topic", remoting.RecallMessage, recall.with("topic", c.name("nowhere")))
	c.ask("recall without a handle", remoting.RecallMessage, recall.with("recallHandle", ""))
	c.ask("recall by no handle", remoting.RecallMessage, recall.with("recallHandle", "hello"))
	c.ask("recall without a topic", remoting.RecallMessage, recall.with("topic", ""))
	c.ask("recall without a group", remoting.RecallMessage, recall.with("producerGroup", ""))
}
