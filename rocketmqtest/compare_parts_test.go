package rocketmqtest_test

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// intended has the intended differences, by part and label: why the response is not the real broker's. The package's
// documentation must list them too.
var intended = map[string]string{}

// parts are the conversations that are held with both brokers.
var parts = []struct {
	name string
	run  func(*conversation)
}{
	{"Topics", requestTopics},
	{"Sends", requestSends},
	{"Pulls", requestPulls},
	{"Offsets", requestOffsets},
	{"Groups", requestGroups},
	{"Locks", requestLocks},
	{"SendBack", requestSendBack},
	{"Lookups", requestLookups},
	{"Transactions", requestTransactions},
	{"Timers", requestTimers},
	{"Connections", requestConnections},
	{"Settings", requestSettings},
}

func requestTopics(c *conversation) {
	route := func(label, topic string) {
		c.requestOn(c.names, label, remoting.RouteOfTopic, fields{"topic": topic})
	}
	route("route of an unknown topic", c.name("nowhere"))
	c.requestOn(c.names, "route without a topic", remoting.RouteOfTopic, nil)
	route("route of the pattern of topics", "TBW102")
	c.unanswered("an unknown request to the name server", c.names, 99999)
	c.request("an unknown request to the broker", 99999, nil)
	c.requestOn(c.names, "cluster", remoting.ClusterInfo, nil)
	c.request("a route of the broker", remoting.RouteOfTopic, fields{"topic": c.name("nowhere")})

	topic := c.topic("topics", 2, "attributes", "+message.type=TRANSACTION")
	route("route", topic)
	make := fields{"topic": topic, "readQueueNums": "2", "writeQueueNums": "2", "perm": "6", "defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
	c.request("create", remoting.UpdateTopic, make.with("topic", c.name("topics-more")))
	c.request("create again", remoting.UpdateTopic, make)
	more := make.with("readQueueNums", "3", "writeQueueNums", "4")
	c.request("create with more queues", remoting.UpdateTopic, more)
	// RocketMQ registers a changed topic at its name servers with the version of all topics. They ignore it if they have that
	// version already, from another topic that was made meanwhile, such as the retry topic of a new group. Then only another
	// change of this topic helps.
	sent := time.Now()
	c.until("route of four queues", func() bool {
		if strings.Contains(string(c.call(c.names, remoting.RouteOfTopic, fields{"topic": topic}).Body), `"writeQueueNums":4`) {
			return true
		}
		if time.Since(sent) > time.Second {
			c.call(c.one, remoting.UpdateTopic, make)
			c.call(c.one, remoting.UpdateTopic, more)
			sent = time.Now()
		}
		return false
	})
	route("route with more queues", topic)
	c.request("create without a name", remoting.UpdateTopic, make.with("topic", ""))
	c.request("create with a blank name", remoting.UpdateTopic, make.with("topic", " "))
	c.request("create with an illegal name", remoting.UpdateTopic, make.with("topic", "orders.new"))
	c.request("create with a long name", remoting.UpdateTopic, make.with("topic", strings.Repeat("x", 128)))
	for _, name := range []string{"TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "rmq_sys_wheel_timer", "OFFSET_MOVED_EVENT", "BenchmarkTest", "SELF_TEST_TOPIC", "DefaultCluster", "broker-a", "rmq_sys_x"} {
		c.request("create "+name, remoting.UpdateTopic, make.with("topic", name))
	}
	c.request("create without queues", remoting.UpdateTopic, make.with("topic", c.name("topics-none"), "readQueueNums", ""))
	c.request("create with no number of queues", remoting.UpdateTopic, make.with("topic", c.name("topics-nan"), "readQueueNums", "x"))
	c.request("create without a permission", remoting.UpdateTopic, make.with("topic", c.name("topics-perm"), "perm", ""))
	c.request("create without a filter type", remoting.UpdateTopic, make.with("topic", c.name("topics-filter"), "topicFilterType", ""))
	c.request("create with an unknown filter type", remoting.UpdateTopic, make.with("topic", c.name("topics-filter"), "topicFilterType", "X"))
	c.request("create without a default topic", remoting.UpdateTopic, make.with("topic", c.name("topics-default"), "defaultTopic", ""))
	c.request("create with an unknown attribute", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+colour=red"))
	c.request("create with an unknown type", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+message.type=PURPLE"))
	c.request("create with attributes of no form", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "message.type=NORMAL"))
	c.request("create with the type MIXED", remoting.UpdateTopic, make.with("topic", c.name("topics-attr"), "attributes", "+message.type=MIXED"))

	c.request("delete", remoting.DeleteTopicInBroker, fields{"topic": topic})
	c.requestOn(c.names, "delete at the name server", remoting.DeleteTopicInNames, fields{"topic": topic})
	route("route of what was deleted", topic)
	c.request("delete again", remoting.DeleteTopicInBroker, fields{"topic": topic})
	c.requestOn(c.names, "delete again at the name server", remoting.DeleteTopicInNames, fields{"topic": topic})
	c.request("delete a blank name", remoting.DeleteTopicInBroker, fields{"topic": " "})
	c.request("delete a system topic", remoting.DeleteTopicInBroker, fields{"topic": "TBW102"})
	c.request("delete without a name", remoting.DeleteTopicInBroker, nil)
	c.requestOn(c.names, "delete without a name at the name server", remoting.DeleteTopicInNames, nil)
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

func requestSends(c *conversation) {
	topic := c.topic("sends", 2)
	send := sending(topic, 0)
	body := []byte("hello")
	c.request("send", remoting.SendMessage, send, body...)
	c.request("send in short names", remoting.SendMessageV2, send.short(), body...)
	c.request("send a second time", remoting.SendMessage, send, body...)
	c.request("send without properties", remoting.SendMessage, send.with("properties", ""), body...)
	c.request("send with a tag and a key", remoting.SendMessage, send.with("properties", "UNIQ_KEY\x01K\x02TAGS\x01t\x02KEYS\x01k1 k2\x02colour\x01red\x02"), body...)
	c.request("send an empty body", remoting.SendMessage, send)
	c.request("send to any queue", remoting.SendMessage, send.with("topic", c.topic("sends-one", 1), "queueId", "-1"), body...)
	c.request("send to a queue beyond", remoting.SendMessage, send.with("queueId", "2"), body...)
	c.request("send to an unknown topic", remoting.SendMessage, send.with("topic", c.name("nowhere")), body...)
	c.request("send to an illegal topic", remoting.SendMessage, send.with("topic", "orders.new"), body...)
	c.request("send to a blank topic", remoting.SendMessage, send.with("topic", " "), body...)
	c.request("send to a long topic", remoting.SendMessage, send.with("topic", strings.Repeat("x", 128)), body...)
	// Not to rmq_sys_wheel_timer: a real broker takes it, and its timers stand still from then on.
	for _, name := range []string{"TBW102", "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC", "TRANS_CHECK_MAX_TIME_TOPIC", "OFFSET_MOVED_EVENT", "rmq_sys_x"} {
		c.request("send to "+name, remoting.SendMessage, send.with("topic", name), body...)
	}
	for _, missing := range []string{"producerGroup", "topic", "defaultTopic", "defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag", "reconsumeTimes", "unitMode", "maxReconsumeTimes", "batch"} {
		c.request("send without "+missing, remoting.SendMessage, send.with(missing, ""), body...)
		c.request("send in short names without "+missing, remoting.SendMessageV2, send.with(missing, "").short(), body...)
	}
	for _, number := range []string{"defaultTopicQueueNums", "queueId", "sysFlag", "bornTimestamp", "flag", "reconsumeTimes", "maxReconsumeTimes"} {
		c.request("send with no number for "+number, remoting.SendMessage, send.with(number, "x"), body...)
		c.request("send in short names with no number for "+number, remoting.SendMessageV2, send.with(number, "x").short(), body...)
	}
	c.request("send the largest body", remoting.SendMessage, send, make([]byte, 2<<20)...)
	c.request("send a larger body", remoting.SendMessage, send, make([]byte, 2<<20+1)...)
	c.request("send many properties", remoting.SendMessage, send.with("properties", "p\x01"+strings.Repeat("x", 32700)+"\x02"), body...)
	c.request("send too many properties", remoting.SendMessage, send.with("properties", "p\x01"+strings.Repeat("x", 33000)+"\x02"), body...)
	c.request("send compressed", remoting.SendMessage, send.with("sysFlag", "1"), body...)

	readOnly := c.topic("sends-read-only", 1, "perm", "4")
	c.request("send to what may only be read", remoting.SendMessage, send.with("topic", readOnly), body...)

	batch := c.topic("sends-batch", 1)
	in := sending(batch, 0).with("batch", "true", "properties", "colour\x01red\x02")
	both := append(member("one", "UNIQ_KEY\x01K1\x02TAGS\x01t\x02"), member("two", "UNIQ_KEY\x01K2\x02")...)
	c.request("send a batch", remoting.SendBatchMessage, in.short(), both...)
	c.request("send a batch as one message", remoting.SendMessageV2, in.short(), both...)
	c.stored(batch, 0, 4)
	c.request("pull the batch", remoting.PullMessage, pulling("puller-"+c.id, batch, 0))
	c.request("send an empty batch", remoting.SendBatchMessage, in.short())
	c.request("send a batch cut short", remoting.SendBatchMessage, in.short(), both[:len(both)-3]...)
	c.request("send a batch of no batch", remoting.SendBatchMessage, in.short(), []byte("not a batch at all, but long enough")...)
	c.request("send a batch without the flag", remoting.SendBatchMessage, in.with("batch", "false").short(), both...)

	group := c.name("group")
	c.request("send to the retries of an unknown group", remoting.SendMessage, send.with("topic", "%RETRY%"+group), body...)
	c.request("send to the dead letters of an unknown group", remoting.SendMessage, send.with("topic", "%DLQ%"+group), body...)
	c.heartbeat(c.one, c.clientOne, `{"clientID":"CLIENT","producerDataSet":[],"consumerDataSet":[{"groupName":"`+group+`","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[],"unitMode":false}]}`)
	c.request("send to retries", remoting.SendMessage, send.with("topic", "%RETRY%"+group), body...)
	c.request("send to retries once more", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "3", "maxReconsumeTimes", "16"), body...)
	c.request("send to retries too often", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "17", "maxReconsumeTimes", "16"), body...)
	c.request("send to retries as often as can be", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "16", "maxReconsumeTimes", "16"), body...)
	c.request("send to retries too often by default", remoting.SendMessage, send.with("topic", "%RETRY%"+group, "reconsumeTimes", "17", "maxReconsumeTimes", ""), body...)
	c.request("send to dead letters", remoting.SendMessage, send.with("topic", "%DLQ%"+group), body...)
	c.request("send to a dead letter queue beyond", remoting.SendMessage, send.with("topic", "%DLQ%"+group, "queueId", "3"), body...)
	c.requestOn(c.names, "route of retries", remoting.RouteOfTopic, fields{"topic": "%RETRY%" + group})
}

func requestTransactions(c *conversation) {
	topic, group := c.topic("transactions", 1), c.name("transactions")
	var position int64
	half := func(label string) fields {
		a := c.request(label, remoting.SendMessage, sending(topic, 0).with("producerGroup", group, "sysFlag", "4", "properties", "UNIQ_KEY\x01"+strings.ReplaceAll(label, " ", "_")+"\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02colour\x01red\x02"), []byte(label)...)
		c.exchanges[len(c.exchanges)-1].response = halfOffset.ReplaceAllString(c.exchanges[len(c.exchanges)-1].response, "queueOffset=N")
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
	c.request("commit by another group", remoting.EndTransaction, end.with("producerGroup", "others"))
	c.request("commit with a wrong queue offset", remoting.EndTransaction, end.with("tranStateTableOffset", "99999999"))
	c.request("commit with a wrong position", remoting.EndTransaction, end.with("commitLogOffset", "999999999999"))
	c.request("commit with a position in the middle", remoting.EndTransaction, end.with("commitLogOffset", strconv.FormatInt(position+1, 10)))
	for _, missing := range []string{"producerGroup", "tranStateTableOffset", "commitLogOffset", "commitOrRollback", "fromTransactionCheck", "msgId", "transactionId"} {
		if missing != "fromTransactionCheck" && missing != "msgId" && missing != "transactionId" {
			c.request("end without "+missing, remoting.EndTransaction, end.with(missing, ""))
		}
	}
	c.request("end with no number", remoting.EndTransaction, end.with("commitOrRollback", "x"))
	c.request("commit", remoting.EndTransaction, end)
	c.request("commit twice", remoting.EndTransaction, end)
	c.request("rollback after the commit", remoting.EndTransaction, end.with("commitOrRollback", "12"))
	c.request("rollback by another group", remoting.EndTransaction, end.with("commitOrRollback", "12", "producerGroup", "others"))
	c.request("rollback with a wrong position", remoting.EndTransaction, end.with("commitOrRollback", "12", "commitLogOffset", "999999999999"))
	back := half("half to roll back")
	c.request("roll back", remoting.EndTransaction, back.with("commitOrRollback", "12"))
	c.request("commit after the rollback", remoting.EndTransaction, back)
	c.request("commit as a check does", remoting.EndTransaction, half("half to check").with("fromTransactionCheck", "true"))
	c.stored(topic, 0, 4)
	c.request("pull what was committed", remoting.PullMessage, pulling(c.name("transactions-reader"), topic, 0))
	c.request("half to an unknown topic", remoting.SendMessage, sending(c.name("nowhere"), 0).with("sysFlag", "4", "properties", "UNIQ_KEY\x01K\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02"))
	c.request("half to a queue beyond", remoting.SendMessage, sending(topic, 9).with("sysFlag", "4", "properties", "UNIQ_KEY\x01K\x02TRAN_MSG\x01true\x02PGROUP\x01"+group+"\x02"))
}

func requestTimers(c *conversation) {
	topic := c.topic("timers", 1)
	send := func(label string, properties ...string) *remoting.Command {
		p := "UNIQ_KEY\x01" + strings.ReplaceAll(label, " ", "_") + "\x02"
		for i := 0; i < len(properties); i += 2 {
			p += properties[i] + "\x01" + properties[i+1] + "\x02"
		}
		a := c.request(label, remoting.SendMessage, sending(topic, 0).with("properties", p), []byte(label)...)
		last := &c.exchanges[len(c.exchanges)-1]
		last.response = recallHandle.ReplaceAllString(last.response, "recallHandle=HANDLE")
		if label != "timer in the past" && label != "delay level 0" && label != "delay level below" && label != "timer now" && label != "cloud's timer" {
			last.response = halfOffset.ReplaceAllString(last.response, "queueOffset=N")
		}
		return a
	}
	in := func(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).UnixMilli(), 10) }
	// RocketMQ 4 stores at once what only a wheel delays.
	stored := func(n, without int) {
		if testbroker.Is4() {
			n = without
		}
		c.stored(topic, 0, n)
	}
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
	stored(5, 10)
	send("delay level 1", "DELAY", "1")
	stored(6, 11)
	send("delay level 0", "DELAY", "0")
	send("delay level below", "DELAY", "-1")
	send("delay level beyond", "DELAY", "99")
	send("delay level that is none", "DELAY", "x")
	send("cloud's timer", "__STARTDELIVERTIME", in(time.Hour))
	send("delete in the past", "TIMER_DELIVER_MS", in(-time.Hour), "TIMER_DEL_UNIQKEY", topic+"+none")
	send("delete", "TIMER_DELIVER_MS", in(time.Hour), "TIMER_DEL_UNIQKEY", topic+"+none")
	send("delete without an instant", "TIMER_DEL_UNIQKEY", topic+"+none")
	stored(9, 16)
	c.request("pull", remoting.PullMessage, pulling(c.name("timers-reader"), topic, 0))

	h := send("timer to recall", "TIMER_DELIVER_MS", in(time.Hour)).Ext["recallHandle"]
	recall := fields{"topic": topic, "producerGroup": "producers", "recallHandle": h}
	c.request("recall", remoting.RecallMessage, recall)
	c.request("recall again", remoting.RecallMessage, recall)
	c.request("recall from another topic", remoting.RecallMessage, recall.with("topic", c.topic("timers-other", 1)))
	c.request("recall from an unknown topic", remoting.RecallMessage, recall.with("topic", c.name("nowhere")))
	c.request("recall without a handle", remoting.RecallMessage, recall.with("recallHandle", ""))
	c.request("recall by no handle", remoting.RecallMessage, recall.with("recallHandle", "hello"))
	c.request("recall without a topic", remoting.RecallMessage, recall.with("topic", ""))
	c.request("recall without a group", remoting.RecallMessage, recall.with("producerGroup", ""))
}

func requestConnections(c *conversation) {
	topic := c.topic("connected", 2)
	group, producers := c.name("connected-group"), c.name("connected-producers")
	members := func(label, group string) {
		c.request(label, remoting.ConsumerConnections, fields{"consumerGroup": group})
	}
	members("members of an unknown group", group)
	c.request("members without a group", remoting.ConsumerConnections, nil)
	c.request("producers of an unknown group", remoting.ProducerConnections, fields{"producerGroup": producers})
	c.request("groups of a topic that nobody reads", remoting.GroupsOfTopic, fields{"topic": topic})
	c.request("groups of an unknown topic", remoting.GroupsOfTopic, fields{"topic": c.name("nowhere")})

	beat := func(client, topic, version string) string {
		return `{"clientID":"` + client + `","producerDataSet":[{"groupName":"` + producers + `"}],"consumerDataSet":[{"groupName":"` + group +
			`","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","unitMode":false,"subscriptionDataSet":[{"topic":"` +
			topic + `","subString":"*","tagsSet":[],"codeSet":[],"subVersion":` + version + `,"expressionType":"TAG","classFilterMode":false}]}]}`
	}
	c.heartbeat(c.one, c.clientOne, beat("CLIENT", topic, "1"))
	members("members", group)
	c.request("producers", remoting.ProducerConnections, fields{"producerGroup": producers})
	c.request("groups of a topic", remoting.GroupsOfTopic, fields{"topic": topic})
	c.heartbeat(c.one, c.clientOne, beat("CLIENT", c.name("other"), "2"))
	members("members that have changed their topic", group)
	c.heartbeat(c.one, c.clientOne, beat("CLIENT", topic, "3"))
	c.call(c.one, remoting.UpdateConsumerOffset, fields{"consumerGroup": group, "topic": topic, "queueId": "0", "commitOffset": "0"})
	var groups struct { // in no order
		List []string `json:"groupList"`
	}
	if err := remoting.DecodeJSON(c.call(c.one, remoting.GroupsOfTopic, fields{"topic": topic}).Body, &groups); err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(groups.List)
	c.exchanges = append(c.exchanges, exchange{"groups of a topic with offsets", c.text(strings.Join(groups.List, " "))})
}

func requestSettings(c *conversation) {
	// Other parts depend on the settings: only those that they don't are changed.
	read := func(label string, names ...string) {
		response := c.call(c.one, remoting.BrokerConfig, nil)
		seen := []string{strconv.Itoa(int(response.Code))}
		for line := range strings.Lines(string(response.Body)) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), "="); slices.Contains(names, name) {
				seen = append(seen, strings.TrimSpace(line))
			}
		}
		slices.Sort(seen[1:]) // RocketMQ 4 lists them in no order
		c.exchanges = append(c.exchanges, exchange{label, strings.Join(seen, " ")})
	}
	names := []string{"autoCreateTopicEnable", "brokerId", "brokerPermission", "brokerRole", "enableControllerMode", "flushDiskType", "inSyncReplicas", "maxMessageSize",
		"rejectTransactionMessage", "timerMaxDelaySec", "timerPrecisionMs", "timerRollWindowSlot", "timerWheelEnable", "transactionCheckInterval", "transactionCheckMax",
		"transactionOpBatchInterval", "transactionTimeOut"}
	if testbroker.Is4() { // it has no timers, and repeats lines of its file that it doesn't know
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "timer") })
	}
	read("settings", names...)
	c.request("change a setting", remoting.UpdateBrokerConfig, nil, []byte("transactionCheckMax=61\n")...)
	read("changed setting", "transactionCheckMax")
	c.request("change an unknown setting", remoting.UpdateBrokerConfig, nil, []byte("nonsense=1\n")...)
	read("unknown setting", "nonsense")
	c.request("change a setting to what is no number", remoting.UpdateBrokerConfig, nil, []byte("transactionCheckMax=x\n")...)
	read("setting that is no number", "transactionCheckMax")
	c.request("change nothing", remoting.UpdateBrokerConfig, nil)
	c.call(c.one, remoting.UpdateBrokerConfig, nil, []byte("transactionCheckMax=60\n")...)

	response := c.call(c.one, remoting.BrokerRuntime, nil)
	var body struct {
		Table map[string]string `json:"table"`
	}
	if err := remoting.DecodeJSON(response.Body, &body); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range []string{"bootTimestamp", "runtime", "commitLogDiskRatio", "timerReadBehind"} {
		form := regexp.MustCompile(`[0-9]+`).ReplaceAllString(body.Table[name], "N")
		c.exchanges = append(c.exchanges, exchange{"state: " + name, form})
	}
	for _, name := range []string{"brokerVersion", "brokerVersionDesc"} {
		c.exchanges = append(c.exchanges, exchange{"state: " + name, body.Table[name]})
	}
}
