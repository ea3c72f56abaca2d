package doctor

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// settingProof is the proof of a check of the broker's settings: a finding with settings, ok with others (or the defaults).
func settingProof(finding, ok []string, says, mends string) proof {
	return proof{
		finding: func(w *world) {
			w.broker()
			w.set(finding...)
		}, says: says, mends: mends,
		ok: func(w *world) {
			w.broker()
			w.set(ok...)
		},
		unknown: func(w *world) {
			w.broker()
			w.forbid(remoting.BrokerConfig)
		},
	}
}

// staying returns the proof with the reason why its finding stays.
func (p proof) staying(reason string) proof {
	p.stays = reason
	return p
}

func init() {
	maps.Copy(proofs, map[string]proof{
		"broker-name-servers": {
			finding: func(w *world) {
				w.broker()
				other := rocketmqtest.RunT(w, rocketmqtest.Config{Name: "broker-b"})
				w.config.Broker.NameServers = append(w.config.Broker.NameServers, other.Addr())
			}, says: "list different brokers", mends: "namesrvAddr=127.0.0.1:",
			ok: func(w *world) { w.broker() },
			unknown: func(w *world) {
				w.broker()
				w.config.Broker.NameServers = append(w.config.Broker.NameServers, "127.0.0.1:1")
			},
		},
		"broker-master":       settingProof([]string{"brokerPermission", "4"}, nil, "brokerPermission is 4", "-k brokerPermission -v 6"),
		"broker-check-window": settingProof([]string{"transactionCheckMax", "3"}, nil, "more than 5m0s: outbox.Config.MaxTransaction", "-k transactionCheckMax -v 12"),
		"broker-check-early":  settingProof([]string{"transactionTimeOut", "1000"}, nil, "at least 4.5s", "-k transactionTimeOut -v 4500"),
		"broker-transactions": settingProof([]string{"rejectTransactionMessage", "true"}, nil, "are refused", "-k rejectTransactionMessage -v false"),
		"broker-retention-short": settingProof([]string{"fileReservedTime", "6"}, nil, "kept for 6h0m0s",
			"-k fileReservedTime -v 24"),
		"broker-disk":            settingProof([]string{"diskMaxUsedSpaceRatio", "0"}, nil, "0 % of the disk are used", "-k fileReservedTime -v 36").staying("the disk is as full as before"),
		"broker-durability":      settingProof(nil, []string{"flushDiskType", "SYNC_FLUSH"}, "ASYNC_FLUSH, ASYNC_MASTER, 0 slaves", "flushDiskType=SYNC_FLUSH"),
		"broker-message-size":    settingProof([]string{"maxMessageSize", "4096"}, nil, "at least 1048576", "-k maxMessageSize"),
		"broker-timer-horizon":   settingProof([]string{"timerMaxDelaySec", "3600"}, nil, "reach 1h0m0s ahead", "-k timerMaxDelaySec -v 259200"),
		"broker-timer-retention": settingProof([]string{"fileReservedTime", "24"}, nil, "kept for at least 2 days", "-k fileReservedTime -v 48"),
		"broker-auto-create": {
			finding: func(w *world) { w.broker(rocketmqtest.Config{AutoCreateTopics: true}) }, says: "autoCreateTopicEnable is true", mends: "autoCreateTopicEnable=false",
			ok: func(w *world) { w.broker() },
			unknown: func(w *world) {
				w.broker()
				w.forbid(remoting.BrokerConfig)
			},
		},
		"broker-version": {
			finding: func(w *world) { w.broker(rocketmqtest.Config{Version: rocketmqtest.RocketMQ55}) }, says: "RocketMQ 5.5.0: uses a whole core", mends: "5.3.3",
			ok:      func(w *world) { w.broker() },
			unknown: (*world).brokerAway,
		},
		"broker-topics": {
			finding: func(w *world) {
				w.database()
				w.broker()
				w.mq.CreateTopic(rocketflow.MissingEventsTopic, 4)
				w.event("orders", 0)
			}, says: "topic orders doesn't exist", mends: "mqadmin updateTopic -n 127.0.0.1:",
			ok: func(w *world) {
				w.database()
				w.broker()
				w.mq.CreateTopic(rocketflow.MissingEventsTopic, 4)
				w.mq.CreateTopic("orders", 4)
				w.mq.CreateTopic("payments", 4)
				w.event("orders", 0)
				w.consumer("billing", "payments")
			},
			unknown: func(w *world) {
				w.database()
				w.broker()
				w.event("orders", 0)
				w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
					if r.Code == int(remoting.RouteOfTopic) {
						return rocketmqtest.Respond(int(remoting.SystemBusy), "busy")
					}
					return rocketmqtest.Pass
				})
			},
		},
		"broker-permission": {
			finding: func(w *world) {
				w.probing()
				w.forbid(remoting.SendMessage)
			}, says: "a half message to topic orders is refused", mends: "mqadmin createAcl",
			ok: func(w *world) { w.probing() },
			unknown: func(w *world) {
				w.probing()
				w.mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
					if r.Code == int(remoting.SendMessage) {
						return rocketmqtest.Respond(int(remoting.SystemBusy), "busy")
					}
					return rocketmqtest.Pass
				})
			},
		},
		"broker-half-messages": {
			finding: func(w *world) {
				w.broker()
				w.half("orders")
				w.rounds(12)
			}, says: "of producer group shop, to topic orders, checked back", mends: "producer group shop",
			ok: func(w *world) {
				w.broker()
				w.half("orders")
			},
			unknown: func(w *world) {
				w.broker()
				w.half("orders")
				w.forbid(remoting.PullMessage)
			},
		},
		"broker-discarded": {
			finding: func(w *world) {
				w.broker()
				w.half("orders")
				w.rounds(17)
			}, says: "1 half message discarded", mends: "TRANS_CHECK_MAX_TIME_TOPIC",
			ok: func(w *world) { w.broker() },
			unknown: func(w *world) {
				w.broker()
				w.half("orders")
				w.rounds(17)
				w.forbid(remoting.MaxOffset)
			},
		},
		"broker-dead-letters": {
			finding: func(w *world) { w.sentBack() }, says: "1 message in %DLQ%shop-billing", mends: "mqadmin printMsg",
			ok: func(w *world) {
				w.database()
				w.broker()
				w.consumer("billing", "orders")
			},
			unknown: func(w *world) {
				w.sentBack()
				w.forbid(remoting.MaxOffset)
			},
		},
	})
}

// probing makes a service that has published to a topic, and allows probes.
func (w *world) probing() {
	w.Helper()
	w.database()
	w.broker()
	w.mq.CreateTopic("orders", 2)
	w.event("orders", 0)
	w.config.Probe = true
}

// sentBack makes a consumer with a message in the dead-letter topic of its group.
func (w *world) sentBack() {
	w.Helper()
	w.database()
	w.broker()
	w.consumer("billing", "orders")
	w.mq.CreateTopic("%DLQ%shop-billing", 1)
	w.send("%DLQ%shop-billing", 1, nil)
}

// send sends messages to the first queue of a topic.
func (w *world) send(topic string, n int, properties map[string]string) {
	w.Helper()
	conn := w.conn()
	for i := range n {
		p := map[string]string{"UNIQ_KEY": fmt.Sprintf("%s-%d", topic, i)}
		maps.Copy(p, properties)
		if _, err := conn.Call(w.Context(), &remoting.Command{Code: remoting.SendMessage, Body: []byte(strings.Repeat("x", 500)), Ext: map[string]string{
			"producerGroup": "shop", "topic": topic, "defaultTopic": remoting.DefaultTopic, "defaultTopicQueueNums": "4", "queueId": "0", "sysFlag": "0",
			"bornTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "flag": "0", "properties": remoting.EncodeProperties(p),
			"reconsumeTimes": "0", "unitMode": "false", "batch": "false",
		}}); err != nil {
			w.Fatal(err)
		}
	}
}

// half leaves a half message of the service shop, for which nobody answers check-backs.
func (w *world) half(topic string) {
	w.Helper()
	w.mq.CreateTopic(topic, 1)
	w.send(topic, 1, map[string]string{"TRAN_MSG": "true", "PGROUP": "shop"})
}

// rounds lets the broker make rounds of check-backs.
func (w *world) rounds(n int) {
	for range n {
		w.mq.FastForward(30 * time.Second)
	}
}

// A probe leaves nothing that a consumer sees, and no half message.
func TestProbeLeavesNothing(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker-permission"}}}
	w.probing()
	w.examine()
	if n := len(w.mq.Messages("orders")); n != 0 {
		t.Errorf("%d messages are in the topic", n)
	}
	if s := w.mq.Status(); s.Halves != 0 {
		t.Errorf("%d half messages are open", s.Halves)
	}
	w.config.Probe = false
	if r := w.examine(); len(r.Results) != 0 {
		t.Errorf("without Probe: %+v", r.Results)
	}
}

func TestTopicFault(t *testing.T) {
	t.Parallel()
	equal := remoting.QueueData{Broker: "a", Read: 4, Write: 4, Perm: 6}
	with := func(change func(*remoting.QueueData)) remoting.Route {
		other := equal
		other.Broker = "b"
		change(&other)
		return remoting.Route{Queues: []remoting.QueueData{equal, other}}
	}
	for want, route := range map[string]remoting.Route{
		"":                             with(func(*remoting.QueueData) {}),
		"doesn't exist":                {},
		"doesn't exist on broker b":    {Queues: []remoting.QueueData{equal}},
		"has permission 4 on broker b": with(func(q *remoting.QueueData) { q.Perm = 4 }),
		"has 8 queues for reading and 4 for writing on broker b": with(func(q *remoting.QueueData) { q.Read = 8 }),
		"has 4 queues on broker a and 8 on broker b":             with(func(q *remoting.QueueData) { q.Read, q.Write = 8, 8 }),
	} {
		if got := topicFault(route, []string{"a", "b"}); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// RocketMQ 4 has no timers and other settings: what doesn't concern it is ok.
func TestRocketMQ4(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker"}, Pre: true, Skip: []string{"broker-durability"}}}
	w.broker(rocketmqtest.Config{Version: rocketmqtest.RocketMQ49})
	for _, r := range w.examine().Results {
		if r.Status != OK {
			t.Errorf("got %+v", r)
		}
	}
}
