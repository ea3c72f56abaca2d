package rocketmqtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestSameRefusalsAsRocketMQ sends the same requests of users with different grants to this broker and to a real one that requires
// credentials, and compares which requests are refused, and how.
func TestSameRefusalsAsRocketMQ(t *testing.T) {
	t.Parallel()
	testbroker.NeedsReal(t)
	version, ok := imitated[testbroker.Version()]
	if !ok {
		t.Skipf("the embedded broker doesn't behave as %s", testbroker.Version())
	}
	admin := rocketmqtest.User{Name: "administrator", Secret: "administrator-secret"}
	users := grantedUsers(testbroker.Is4())
	real := testbroker.StartRocketMQ(t, devstack.RocketMQConfig{Auth: &devstack.AuthConfig{Admin: admin, Users: users}})
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: version, Credentials: map[string]string{admin.Name: admin.Secret}, Users: users})
	compare(t, "Grants", requestsOfUsers(t, mq.BrokerAddr(), admin, users), requestsOfUsers(t, real.Broker(), admin, users))
}

// grantedUsers returns users whose grants differ.
func grantedUsers(acl1 bool) []rocketmqtest.User {
	user := func(name string, grants ...rocketmqtest.Grant) rocketmqtest.User {
		return rocketmqtest.User{Name: name, Secret: name + "-secret", Grants: grants}
	}
	on := func(resource string, actions ...string) rocketmqtest.Grant {
		return rocketmqtest.Grant{Resource: resource, Actions: actions}
	}
	users := []rocketmqtest.User{
		user("nothing"),
		user("publisher", on("Topic:orders", "Pub")),
		user("reader-of-topics", on("Topic:orders", "Sub")),
		user("reader-of-groups", on("Group:readers", "Sub")),
		user("consumer", on("Topic:orders", "Sub"), on("Group:readers", "Sub")),
		user("everywhere", on("Topic:*", "Pub", "Sub"), on("Group:*", "Sub")),
	}
	if !acl1 {
		users = append(users,
			user("by-prefix", on("Topic:or*", "Pub"), on("Group:re*", "Sub")),
			user("observer", on("Topic:orders", "Get"), on("Group:readers", "Get")),
			user("of-offsets", on("Topic:orders", "Update"), on("Group:readers", "Update")),
			user("operator", on("Topic:*", "Create", "Delete")),
			user("of-clusters", on("Cluster:*", "Get", "Update")),
			user("of-one-cluster", on("Cluster:DefaultCluster", "Get")),
			user("all-of-orders", on("Topic:orders", "All")),
			user("all", on("*", "All")))
	}
	return users
}

// requestsOfUsers returns what a broker answers to each user.
func requestsOfUsers(t *testing.T, broker string, admin rocketmqtest.User, users []rocketmqtest.User) (all []exchange) {
	t.Helper()
	c := &conversation{t: t}
	as := func(u rocketmqtest.User) *remoting.Conn {
		conn, err := remoting.Dial(t.Context(), broker, remoting.Credentials{AccessKey: u.Name, SecretKey: u.Secret}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		return conn
	}
	create := fields{"readQueueNums": "1", "writeQueueNums": "1", "perm": "6", "defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false"}
	operator := as(admin)
	for _, topic := range []string{"orders", "secrets"} {
		if a := c.call(operator, remoting.UpdateTopic, create.with("topic", topic)); a.Code != remoting.Success {
			t.Fatal(a.Err())
		}
	}
	beat := func(group, topic string) string {
		return `{"clientID":"client","producerDataSet":[{"groupName":"producers"}],"consumerDataSet":[{"groupName":"` + group +
			`","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","unitMode":false,"subscriptionDataSet":[{"topic":"%RETRY%` + group +
			`","subString":"*"},{"topic":"` + topic + `","subString":"*"}]}]}`
	}
	lock := func(group, topic string) string {
		return `{"clientId":"client","consumerGroup":"` + group + `","mqSet":[{"topic":"` + topic + `","brokerName":"broker-a","queueId":0}]}`
	}
	end := fields{"producerGroup": "producers", "tranStateTableOffset": "0", "commitLogOffset": "0", "commitOrRollback": "12", "fromTransactionCheck": "false",
		"msgId": "K", "transactionId": "K"}
	for _, u := range users {
		conn := as(u)
		ask := func(label string, code remoting.Code, ext fields, body string) {
			all = append(all, exchange{u.Name + ": " + label, refusal(c.call(conn, code, ext, []byte(body)...))})
		}
		for _, topic := range []string{"orders", "secrets", "%RETRY%readers", "%RETRY%others"} {
			ask("send to "+topic, remoting.SendMessage, sending(topic, 0), "x")
			ask("send V2 to "+topic, remoting.SendMessageV2, sending(topic, 0).short(), "x")
			ask("send a batch to "+topic, remoting.SendBatchMessage, sending(topic, 0).short(), "x")
			ask("end without a topic for "+topic, remoting.EndTransaction, end, "")
			ask("end for "+topic, remoting.EndTransaction, end.with("topic", topic), "")
			ask("resume a check of "+topic, remoting.ResumeCheck, fields{"topic": topic, "msgId": "0"}, "")
			ask("recall from "+topic, remoting.RecallMessage, fields{"topic": topic, "producerGroup": "producers", "recallHandle": "x"}, "")
			ask("query "+topic, remoting.QueryMessage, fields{"topic": topic, "key": "K", "maxNum": "1", "beginTimestamp": "0", "endTimestamp": "1"}, "")
			for _, code := range []remoting.Code{remoting.MaxOffset, remoting.MinOffset, remoting.SearchOffset} {
				ask(fmt.Sprintf("request %d of %s", code, topic), code, fields{"topic": topic, "queueId": "0", "timestamp": "0"}, "")
			}
			ask("groups of "+topic, remoting.GroupsOfTopic, fields{"topic": topic}, "")
			for _, group := range []string{"readers", "others"} {
				ask("pull "+topic+" as "+group, remoting.PullMessage, pulling(group, topic, 0), "")
				ask("beat for "+topic+" as "+group, remoting.Heartbeat, nil, beat(group, topic))
				ask("query the offset in "+topic+" of "+group, remoting.QueryConsumerOffset, fields{"topic": topic, "consumerGroup": group, "queueId": "0"}, "")
				ask("update the offset in "+topic+" of "+group, remoting.UpdateConsumerOffset, fields{"topic": topic, "consumerGroup": group, "queueId": "0", "commitOffset": "0"}, "")
				ask("lock "+topic+" as "+group, remoting.LockQueues, nil, lock(group, topic))
				ask("unlock "+topic+" as "+group, remoting.UnlockQueues, nil, lock(group, topic))
				ask("offsets of "+group+" in "+topic, remoting.ResetGroup, fields{"topic": topic, "group": group, "timestamp": "0", "isForce": "true"}, "")
			}
		}
		for _, group := range []string{"readers", "others"} {
			ask("members of "+group, remoting.ConsumerList, fields{"consumerGroup": group}, "")
			ask("connections of "+group, remoting.ConsumerConnections, fields{"consumerGroup": group}, "")
			ask("send back as "+group, remoting.SendMessageBack, fields{"offset": "0", "group": group, "delayLevel": "0", "originMsgId": "K", "originTopic": "orders", "unitMode": "false", "maxReconsumeTimes": "1"}, "")
			ask("unregister from "+group, remoting.UnregisterClient, fields{"clientID": "client", "consumerGroup": group}, "")
		}
		ask("unregister a producer", remoting.UnregisterClient, fields{"clientID": "client", "producerGroup": "producers"}, "")
		ask("beat of a producer", remoting.Heartbeat, nil, `{"clientID":"client","producerDataSet":[{"groupName":"producers"}],"consumerDataSet":[]}`)
		ask("producers", remoting.ProducerConnections, fields{"producerGroup": "producers"}, "")
		ask("a message", remoting.MessageByID, fields{"offset": "0"}, "")
		ask("all groups", remoting.AllGroups, nil, "")
		ask("all offsets", remoting.AllConsumerOffsets, nil, "")
		ask("settings", remoting.BrokerConfig, nil, "")
		ask("change settings", remoting.UpdateBrokerConfig, nil, "transactionCheckMax=60\n")
		changed := c.call(conn, remoting.UpdateBrokerConfig, nil, []byte("transactionCheckMax=60\n")...)
		all = append(all, exchange{u.Name + ": response to a change of settings", fmt.Sprint(int(changed.Code))}) // docs/security.md warns of it
		ask("state", remoting.BrokerRuntime, nil, "")
		ask("create", remoting.UpdateTopic, create.with("topic", "made"), "")
		ask("delete", remoting.DeleteTopicInBroker, fields{"topic": "made"}, "")
	}
	return all
}

// refusal returns how a request was refused for want of a grant, or "allowed".
func refusal(a *remoting.Command) string {
	const acl1 = "org.apache.rocketmq.acl.common.AclException: "
	if a.Code == remoting.NoPermission || a.Code == remoting.SystemError && strings.HasPrefix(a.Remark, acl1) {
		remark, _, _ := strings.Cut(a.Remark, ", org.apache.rocketmq.") // where in its source
		return fmt.Sprint(int(a.Code), " ", remark)
	}
	return "allowed"
}
