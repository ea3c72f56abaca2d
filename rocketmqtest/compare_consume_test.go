package rocketmqtest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

func pulling(group, topic string, offset int64) fields {
	return fields{"consumerGroup": group, "topic": topic, "queueId": "0", "queueOffset": strconv.FormatInt(offset, 10), "maxMsgNums": "32", "sysFlag": "4",
		"commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG"}
}

func (c *conversation) fill(topic string, tags ...string) {
	for i, tag := range tags {
		c.call(c.one, remoting.SendMessage, sending(topic, 0).with("properties", fmt.Sprintf("UNIQ_KEY\x01K%d\x02TAGS\x01%s\x02", i, tag)), fmt.Appendf(nil, "m%d", i)...)
	}
	c.stored(topic, 0, len(tags))
}

func requestPulls(c *conversation) {
	topic, empty, group := c.topic("pulls", 2), c.topic("pulls-empty", 1), c.name("pulls")
	c.fill(topic, "a", "b", "a", "c")
	pull := pulling(group, topic, 0)
	c.request("pull", remoting.PullMessage, pull)
	c.request("pull from the middle", remoting.PullMessage, pull.with("queueOffset", "2"))
	c.request("pull one", remoting.PullMessage, pull.with("maxMsgNums", "1"))
	c.request("pull none", remoting.PullMessage, pull.with("maxMsgNums", "0"))
	c.request("pull at the end", remoting.PullMessage, pull.with("queueOffset", "4"))
	c.request("pull beyond the end by one", remoting.PullMessage, pull.with("queueOffset", "5"))
	c.request("pull beyond the end", remoting.PullMessage, pull.with("queueOffset", "100"))
	c.request("pull before the beginning", remoting.PullMessage, pull.with("queueOffset", "-1"))
	c.request("pull from an empty queue", remoting.PullMessage, pull.with("queueId", "1"))
	c.request("pull from an empty queue beyond", remoting.PullMessage, pull.with("queueId", "1", "queueOffset", "7"))
	c.request("pull from an empty queue before", remoting.PullMessage, pull.with("queueId", "1", "queueOffset", "-1"))
	c.request("pull from an empty topic", remoting.PullMessage, pull.with("topic", empty))
	c.request("pull from a queue beyond", remoting.PullMessage, pull.with("queueId", "2"))
	c.request("pull from a queue before", remoting.PullMessage, pull.with("queueId", "-1"))
	c.request("pull from an unknown topic", remoting.PullMessage, pull.with("topic", c.name("nowhere")))
	c.request("pull a tag", remoting.PullMessage, pull.with("subscription", "a"))
	c.request("pull tags", remoting.PullMessage, pull.with("subscription", "b || c"))
	c.request("pull a tag that is none", remoting.PullMessage, pull.with("subscription", "zz"))
	c.request("pull an empty subscription", remoting.PullMessage, pull.with("subscription", ""))
	c.request("pull by an illegal expression", remoting.PullMessage, pull.with("subscription", "||"))
	c.request("pull by SQL", remoting.PullMessage, pull.with("subscription", "a > 1", "expressionType", "SQL92"))
	c.request("pull without an expression type", remoting.PullMessage, pull.with("expressionType", ""))
	for _, missing := range []string{"consumerGroup", "topic", "queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset", "suspendTimeoutMillis", "subVersion"} {
		c.request("pull without "+missing, remoting.PullMessage, pull.with(missing, ""))
		if missing != "consumerGroup" && missing != "topic" {
			c.request("pull with no number for "+missing, remoting.PullMessage, pull.with(missing, "x"))
		}
	}
	c.request("pull that waits in vain", remoting.PullMessage, pull.with("queueOffset", "4", "sysFlag", "6", "suspendTimeoutMillis", "50"))
	c.request("pull that waits beyond the end", remoting.PullMessage, pull.with("queueOffset", "9", "sysFlag", "6", "suspendTimeoutMillis", "50"))

	c.request("pull with the subscription of a group without members", remoting.PullMessage, pull.with("consumerGroup", c.name("pulls-new"), "sysFlag", "0"))
	c.heartbeat(c.one, c.clientOne, `{"clientID":"CLIENT","producerDataSet":[],"consumerDataSet":[{"groupName":"`+group+`","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[{"topic":"`+topic+`","subString":"a","tagsSet":["a"],"codeSet":[97],"subVersion":5,"expressionType":"TAG","classFilterMode":false}],"unitMode":false}]}`)
	c.request("pull with the group's subscription", remoting.PullMessage, pull.with("sysFlag", "0", "subVersion", "5"))
	c.request("pull with an older version of the group's subscription", remoting.PullMessage, pull.with("sysFlag", "0", "subVersion", "4"))
	c.request("pull with a newer version of the group's subscription", remoting.PullMessage, pull.with("sysFlag", "0", "subVersion", "6"))
	c.request("pull a topic without the group's subscription", remoting.PullMessage, pull.with("sysFlag", "0", "topic", empty))
	c.request("pull with another subscription than the group's", remoting.PullMessage, pull.with("subscription", "b"))

	writeOnly := c.topic("pulls-write-only", 1, "perm", "2")
	c.request("pull what may only be written", remoting.PullMessage, pull.with("topic", writeOnly))
	c.request("pull and commit", remoting.PullMessage, pull.with("sysFlag", "5", "commitOffset", "3", "queueOffset", "3"))
	c.request("query what a pull committed", remoting.QueryConsumerOffset, fields{"consumerGroup": group, "topic": topic, "queueId": "0"})
}

func requestOffsets(c *conversation) {
	topic, group := c.topic("offsets", 2), c.name("offsets")
	at := fields{"consumerGroup": group, "topic": topic, "queueId": "0"}
	c.request("query before anything", remoting.QueryConsumerOffset, at)
	c.request("query before anything, zero isn't wanted", remoting.QueryConsumerOffset, at.with("setZeroIfNotFound", "false"))
	c.request("update of an unknown group", remoting.UpdateConsumerOffset, at.with("commitOffset", "1"))
	c.fill(topic, "a", "b", "c")
	c.request("query of an unknown group", remoting.QueryConsumerOffset, at)
	c.request("query of an unknown group, zero isn't wanted", remoting.QueryConsumerOffset, at.with("setZeroIfNotFound", "false"))
	c.request("query of an unknown group, zero is wanted", remoting.QueryConsumerOffset, at.with("setZeroIfNotFound", "true"))
	c.call(c.one, remoting.PullMessage, pulling(group, topic, 0))
	c.request("query after a pull", remoting.QueryConsumerOffset, at.with("setZeroIfNotFound", "false"))
	c.request("update after a pull", remoting.UpdateConsumerOffset, at.with("commitOffset", "2"))
	c.request("query", remoting.QueryConsumerOffset, at)
	c.request("update backwards", remoting.UpdateConsumerOffset, at.with("commitOffset", "1"))
	c.request("query after that", remoting.QueryConsumerOffset, at)
	c.request("update beyond the end", remoting.UpdateConsumerOffset, at.with("commitOffset", "99"))
	c.request("query after that too", remoting.QueryConsumerOffset, at)
	c.request("update to less than nothing", remoting.UpdateConsumerOffset, at.with("commitOffset", "-1"))
	c.request("query -1", remoting.QueryConsumerOffset, at)
	c.request("query -1, zero isn't wanted", remoting.QueryConsumerOffset, at.with("setZeroIfNotFound", "false"))
	for _, code := range []remoting.Code{remoting.QueryConsumerOffset, remoting.UpdateConsumerOffset} {
		name := fmt.Sprintf("%d ", code)
		with := at.with("commitOffset", "1")
		c.request(name+"of an unknown topic", code, with.with("topic", c.name("nowhere")))
		c.request(name+"of a queue beyond", code, with.with("queueId", "7"))
		c.request(name+"of a queue before", code, with.with("queueId", "-1"))
		c.request(name+"without a topic", code, with.with("topic", ""))
		c.request(name+"without a group", code, with.with("consumerGroup", ""))
		c.request(name+"without a queue", code, with.with("queueId", ""))
		c.request(name+"with no number of a queue", code, with.with("queueId", "x"))
	}
	c.request("update without an offset", remoting.UpdateConsumerOffset, at)
	c.request("update with no number", remoting.UpdateConsumerOffset, at.with("commitOffset", "x"))
	for _, code := range []remoting.Code{remoting.MaxOffset, remoting.MinOffset, remoting.SearchOffset} {
		name := fmt.Sprintf("%d ", code)
		of := fields{"topic": topic, "queueId": "0", "timestamp": "0"}
		c.request(name, code, of)
		c.request(name+"of an empty queue", code, of.with("queueId", "1"))
		c.request(name+"of a queue beyond", code, of.with("queueId", "7"))
		c.request(name+"of an unknown topic", code, of.with("topic", c.name("nowhere")))
		if code != remoting.MinOffset { // the real broker says what is missing, and after a while no longer
			c.request(name+"without a topic", code, of.with("topic", ""))
		}
		c.request(name+"without a queue", code, of.with("queueId", ""))
		c.request(name+"with no number of a queue", code, of.with("queueId", "x"))
	}
	search := fields{"topic": topic, "queueId": "0"}
	c.request("search without an instant", remoting.SearchOffset, search)
	c.request("search for no instant", remoting.SearchOffset, search.with("timestamp", "x"))
	c.request("search in the future", remoting.SearchOffset, search.with("timestamp", strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)))
	c.request("search before time", remoting.SearchOffset, search.with("timestamp", "-1"))
	c.request("search in an empty queue in the future", remoting.SearchOffset, search.with("queueId", "1", "timestamp", strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)))
}

func consumerHeartbeat(group, subscriptions string) string {
	return `{"clientID":"CLIENT","producerDataSet":[{"groupName":"P-` + group + `"}],"consumerDataSet":[{"groupName":"` + group + `","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":[` + subscriptions + `],"unitMode":false}]}`
}

func requestGroups(c *conversation) {
	group := c.name("groups")
	list := fields{"consumerGroup": group}
	c.request("list of an unknown group", remoting.ConsumerList, list)
	c.request("list without a group", remoting.ConsumerList, nil)
	beat := func(client string) []byte {
		return []byte(strings.ReplaceAll(consumerHeartbeat(group, `{"topic":"t","subString":"*","tagsSet":[],"codeSet":[],"subVersion":1,"expressionType":"TAG","classFilterMode":false}`), "CLIENT", client))
	}
	c.request("heartbeat", remoting.Heartbeat, nil, beat(c.clientOne)...)
	c.request("heartbeat again", remoting.Heartbeat, nil, beat(c.clientOne)...)
	c.request("list", remoting.ConsumerList, list)
	c.requestOn(c.two, "heartbeat of another", remoting.Heartbeat, nil, beat(c.clientTwo)...)
	c.until("both in the list", func() bool {
		return strings.Contains(string(c.call(c.one, remoting.ConsumerList, list).Body), c.clientTwo)
	})
	listed := func(label string) { // in no order
		var members struct {
			IDs []string `json:"consumerIdList"`
		}
		if err := remoting.DecodeJSON(c.call(c.one, remoting.ConsumerList, list).Body, &members); err != nil {
			c.t.Fatal(err)
		}
		slices.Sort(members.IDs)
		c.exchanges = append(c.exchanges, exchange{label, c.replacement.Replace(fmt.Sprint(members.IDs))})
	}
	third := c.dial(c.brokerAddr, nil)
	c.requestOn(third, "heartbeat on another connection", remoting.Heartbeat, nil, beat(c.clientTwo)...)
	listed("list of two with three connections")
	c.requestOn(third, "unregister another on its second connection", remoting.UnregisterClient, fields{"clientID": c.clientTwo, "consumerGroup": group})
	listed("list of two with two")
	c.requestOn(third, "unregister it where it isn't", remoting.UnregisterClient, fields{"clientID": c.clientTwo, "consumerGroup": group})
	listed("list of those that remain")
	c.request("heartbeat of nothing", remoting.Heartbeat, nil, []byte(`{"clientID":"x"}`)...)
	c.request("heartbeat without an id", remoting.Heartbeat, nil, []byte(`{"producerDataSet":[],"consumerDataSet":[]}`)...)
	c.request("heartbeat without a body", remoting.Heartbeat, nil)
	c.request("heartbeat of no JSON", remoting.Heartbeat, nil, []byte("hello")...)
	c.request("heartbeat of another JSON", remoting.Heartbeat, nil, []byte("[1]")...)
	c.requestOn(c.two, "unregister another", remoting.UnregisterClient, fields{"clientID": c.clientTwo, "consumerGroup": group})
	c.request("list after that", remoting.ConsumerList, list)
	c.request("unregister the last", remoting.UnregisterClient, fields{"clientID": c.clientOne, "consumerGroup": group, "producerGroup": "P-" + group})
	c.request("list after all are gone", remoting.ConsumerList, list)
	c.request("unregister again", remoting.UnregisterClient, fields{"clientID": c.clientOne, "consumerGroup": group})
	c.request("unregister from an unknown group", remoting.UnregisterClient, fields{"clientID": c.clientOne, "consumerGroup": c.name("nobody")})
	c.request("unregister nobody", remoting.UnregisterClient, fields{"consumerGroup": group})
	c.request("unregister from nothing", remoting.UnregisterClient, fields{"clientID": c.clientOne})
}

func requestLookups(c *conversation) {
	topic := c.topic("lookups", 1)
	sent := c.call(c.one, remoting.SendMessage, sending(topic, 0).with("properties", "UNIQ_KEY\x01U\x02KEYS\x01k1 k2\x02"), []byte("hello")...)
	c.call(c.one, remoting.SendMessage, sending(topic, 0).with("properties", "UNIQ_KEY\x01V\x02KEYS\x01k2\x02"), []byte("again")...)
	_, position, err := remoting.ParseOffsetID(sent.Ext["msgId"])
	if err != nil {
		c.t.Fatal(err)
	}
	view := fields{"offset": strconv.FormatInt(position, 10)}
	c.request("message", remoting.MessageByID, view)
	c.request("message from the middle of one", remoting.MessageByID, view.with("offset", strconv.FormatInt(position+1, 10)))
	c.request("message beyond", remoting.MessageByID, view.with("offset", "999999999999"))
	c.request("message of no position", remoting.MessageByID, nil)
	query := fields{"topic": topic, "key": "k2", "maxNum": "10", "beginTimestamp": "0", "endTimestamp": "9999999999999"}
	c.until("both in the index", func() bool {
		found, _ := remoting.DecodeRecords(c.call(c.one, remoting.QueryMessage, query).Body)
		return len(found) == 2
	})
	c.request("query", remoting.QueryMessage, query)
	c.request("query one", remoting.QueryMessage, query.with("maxNum", "1"))
	c.request("query another key", remoting.QueryMessage, query.with("key", "k1"))
	c.request("query a unique key", remoting.QueryMessage, query.with("key", "U"))
	c.request("query an unknown key", remoting.QueryMessage, query.with("key", "k"))
	c.request("query an unknown topic", remoting.QueryMessage, query.with("topic", c.name("nowhere")))
	c.request("query the past", remoting.QueryMessage, query.with("endTimestamp", "1"))
	c.request("query without a number", remoting.QueryMessage, query.with("maxNum", ""))
	c.keys("topics", c.names, remoting.AllTopics)
	c.keys("groups", c.one, remoting.AllGroups)
}

func requestLocks(c *conversation) {
	topic, group := c.topic("locks", 3), c.name("locks")
	body := func(client string, queues ...int) []byte {
		var set []string
		for _, q := range queues {
			set = append(set, fmt.Sprintf(`{"topic":%q,"brokerName":"broker-a","queueId":%d}`, topic, q))
		}
		return fmt.Appendf(nil, `{"consumerGroup":%q,"clientId":%q,"mqSet":[%s]}`, group, client, strings.Join(set, ","))
	}
	c.request("lock", remoting.LockQueues, nil, body(c.clientOne, 0)...)
	c.request("renew", remoting.LockQueues, nil, body(c.clientOne, 0)...)
	c.requestOn(c.two, "lock another's", remoting.LockQueues, nil, body(c.clientTwo, 0)...)
	c.requestOn(c.two, "lock one that is free and another's", remoting.LockQueues, nil, body(c.clientTwo, 0, 1)...)
	c.requestOn(c.two, "unlock another's", remoting.UnlockQueues, nil, body(c.clientTwo, 0)...)
	c.requestOn(c.two, "lock another's still", remoting.LockQueues, nil, body(c.clientTwo, 0)...)
	c.request("unlock", remoting.UnlockQueues, nil, body(c.clientOne, 0)...)
	c.requestOn(c.two, "lock what was unlocked", remoting.LockQueues, nil, body(c.clientTwo, 0)...)
	c.request("unlock what isn't locked", remoting.UnlockQueues, nil, body(c.clientOne, 2)...)
	c.request("lock a queue beyond", remoting.LockQueues, nil, body(c.clientOne, 9)...)
	c.request("lock nothing", remoting.LockQueues, nil, body(c.clientOne)...)
	c.request("unlock nothing", remoting.UnlockQueues, nil, body(c.clientOne)...)
	c.request("lock without a body", remoting.LockQueues, nil)
	c.request("lock by no JSON", remoting.LockQueues, nil, []byte("hello")...)
	c.request("unlock without a body", remoting.UnlockQueues, nil)
}

func requestSendBack(c *conversation) {
	topic, group := c.topic("back", 1), c.name("back")
	c.fill(topic, "a", "b", "c", "d", "e")
	response := c.call(c.one, remoting.PullMessage, pulling(c.name("back-reader"), topic, 0))
	records, err := remoting.DecodeRecords(response.Body)
	if err != nil || len(records) != 5 {
		c.t.Fatalf("%d records: %v", len(records), err)
	}
	back := fields{"group": group, "originTopic": topic, "originMsgId": "K0", "delayLevel": "0", "unitMode": "false", "maxReconsumeTimes": "16", "offset": strconv.FormatInt(records[0].CommitLog, 10)}
	c.request("send back in a new group", remoting.SendMessageBack, back)
	c.heartbeat(c.one, c.clientOne, consumerHeartbeat(group, ""))
	c.request("send back an unknown message", remoting.SendMessageBack, back.with("offset", strconv.FormatInt(records[0].CommitLog+1<<40, 10)))
	c.request("send back from the middle of one", remoting.SendMessageBack, back.with("offset", strconv.FormatInt(records[0].CommitLog+1, 10)))
	c.request("send back from before all", remoting.SendMessageBack, back.with("offset", "-1"))
	c.request("send back by level 1", remoting.SendMessageBack, back.with("delayLevel", "1", "offset", strconv.FormatInt(records[1].CommitLog, 10)))
	retries := "%RETRY%" + group
	c.stored(retries, 0, 1)
	c.request("pull the retry", remoting.PullMessage, pulling(group, retries, 0).with("subscription", "*"))
	c.request("send back as a dead letter", remoting.SendMessageBack, back.with("delayLevel", "-1", "offset", strconv.FormatInt(records[2].CommitLog, 10)))
	dead := "%DLQ%" + group
	c.stored(dead, 0, 1)
	c.request("pull the dead letter", remoting.PullMessage, pulling(group, dead, 0))
	c.request("send back at the maximum", remoting.SendMessageBack, back.with("maxReconsumeTimes", "0", "offset", strconv.FormatInt(records[3].CommitLog, 10)))
	c.stored(dead, 0, 2)
	c.request("pull the second dead letter", remoting.PullMessage, pulling(group, dead, 1))
	// The retry goes back once more.
	response = c.call(c.one, remoting.PullMessage, pulling(group, retries, 0))
	if again, err := remoting.DecodeRecords(response.Body); err != nil || len(again) == 0 {
		c.t.Fatalf("%d retries: %v", len(again), err)
	} else {
		c.request("send back a retry", remoting.SendMessageBack, back.with("originTopic", retries, "delayLevel", "1", "offset", strconv.FormatInt(again[0].CommitLog, 10)))
	}
	c.stored(retries, 0, 2)
	c.request("pull the second retry", remoting.PullMessage, pulling(group, retries, 1))
	c.request("send back without a maximum", remoting.SendMessageBack, back.with("delayLevel", "1", "maxReconsumeTimes", ""))
	for _, missing := range []string{"group", "offset", "delayLevel", "originTopic", "originMsgId", "unitMode"} {
		c.request("send back without "+missing, remoting.SendMessageBack, back.with("delayLevel", "1").with(missing, ""))
	}
	c.request("send back with no number", remoting.SendMessageBack, back.with("offset", "x"))
	c.request("route of retries", remoting.ConsumerList, fields{"consumerGroup": group})
}
