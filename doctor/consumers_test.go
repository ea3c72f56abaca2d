package doctor

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

func init() {
	client := func() string { return "127.0.0.1@shop-consumer-" + uuid.NewString() }
	billing := func(w *world) {
		w.Helper()
		w.database()
		w.broker()
		w.mq.CreateTopic("orders", 1)
		w.consumer("billing", "orders")
	}
	// forbidden is billing with a member, at a broker that refuses a request.
	forbidden := func(code remoting.Code) func(*world) {
		return func(w *world) {
			billing(w)
			w.join("shop-billing", client(), "orders")
			w.forbid(code)
		}
	}
	maps.Copy(proofs, map[string]proof{
		"consumer-absent": {
			finding: billing, says: "group shop-billing has no member", mends: "redrive retire --consumer billing --topic orders --type order.placed",
			ok: func(w *world) {
				billing(w)
				w.join("shop-billing", client(), "orders")
			},
			unknown: forbidden(remoting.ConsumerConnections),
		},
		"consumer-lag": {
			finding: func(w *world) {
				billing(w)
				w.behind(3, 1)
				w.mq.FastForward(10 * time.Minute)
			}, says: "2 unread messages of topic orders, some older than 5m0s", mends: "mqadmin consumerProgress",
			ok: func(w *world) {
				billing(w)
				w.behind(3, 1)
			},
			unknown: forbidden(remoting.QueryConsumerOffset),
		},
		"consumer-loss": {
			finding: func(w *world) {
				billing(w)
				w.behind(3, 1)
				w.mq.FastForward(60 * time.Hour)
			}, says: "2 unread messages of topic orders will be deleted within 18h0m0s", mends: "-k fileReservedTime -v 144",
			ok: func(w *world) {
				billing(w)
				w.behind(3, 1)
			},
			unknown: forbidden(remoting.BrokerConfig),
		},
		"consumer-inbox-retention": {
			finding: func(w *world) {
				billing(w)
				w.exec("UPDATE consumer SET inbox_retention = '1 day'")
			}, says: "the inbox of consumer billing remembers 24h0m0s, broker broker-a keeps messages for 3 days", mends: "-k fileReservedTime -v 24",
			ok:      billing,
			unknown: forbidden(remoting.BrokerConfig),
		},
		"consumer-subscriptions": {
			finding: func(w *world) {
				billing(w)
				w.join("shop-billing", client(), "orders")
				w.join("shop-billing", client(), "payments")
			}, says: "group shop-billing subscribes to payments", mends: "mqadmin consumerStatus",
			ok: func(w *world) {
				billing(w)
				w.join("shop-billing", client(), "orders", "%RETRY%shop-billing")
				w.join("shop-billing", client(), "orders", "%RETRY%shop-billing")
			},
			unknown: forbidden(remoting.ConsumerConnections),
		},
		"consumer-group-shared": {
			finding: func(w *world) {
				billing(w)
				w.join("shop-billing", client(), "orders")
				w.join("shop-billing", "10.0.0.7@store-consumer-"+uuid.NewString(), "orders")
			}, says: "group shop-billing has members of shop, store", mends: "mqadmin consumerConnection",
			ok: func(w *world) {
				billing(w)
				w.join("shop-billing", client(), "orders")
				w.join("shop-billing", client(), "orders")
			},
			unknown: forbidden(remoting.ConsumerConnections),
		},
		"consumer-dead-letters": {
			finding: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("dead", 2*time.Hour)
			}, says: "1 dead letter, the oldest for 2h0m", mends: "rocketflow redrive retry --consumer billing --schema test_",
			ok: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("retry", 2*time.Hour)
			},
			unknown: (*world).poor,
		},
		"consumer-parked": {
			finding: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("gap", 2*time.Hour)
			}, says: "1 event parked (gap), the oldest for 2h0m", mends: "rocketflow redrive parked --consumer billing",
			ok: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("gap", time.Minute)
			},
			unknown: (*world).poor,
		},
		"consumer-paused": {
			finding: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.exec("INSERT INTO pause (consumer, kind, topic, type, subject, paused_at, actor, reason) VALUES ('billing', 'handler', 'orders', 'order.placed', '', clock_timestamp() - interval '2 hours', 'maria', 'the bank is away')")
				w.park("paused", time.Minute)
			}, says: "the handler of type order.placed of topic orders (1 event parked) is paused for 2h0m0s, by maria: the bank is away",
			mends: "rocketflow resume --consumer billing --topic orders --type order.placed",
			ok: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
			},
			unknown: (*world).poor,
		},
		"consumer-unhandled": {
			finding: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("unhandled", time.Minute)
			}, says: "1 event of type order.placed of topic orders without a handler", mends: "redrive retire --consumer billing --topic orders --type order.placed",
			ok: func(w *world) {
				w.database()
				w.consumer("billing", "orders")
				w.park("gap", time.Minute)
			},
			unknown: (*world).poor,
		},
	})
}

// behind sends messages to orders, of which the group of billing has committed some.
func (w *world) behind(sent, committed int) {
	w.Helper()
	w.behindIn("shop-billing", sent, committed)
}

// behindIn is behind for a group of another name.
func (w *world) behindIn(group string, sent, committed int) {
	w.Helper()
	conn := w.join(group, "127.0.0.1@shop-consumer-"+uuid.NewString(), "orders")
	w.send("orders", sent, nil)
	if _, err := conn.Call(w.Context(), &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: map[string]string{
		"consumerGroup": group, "topic": "orders", "queueId": "0", "commitOffset": strconv.Itoa(committed),
	}}); err != nil {
		w.Fatal(err)
	}
}

// park parks an event of billing, so long ago.
func (w *world) park(reason string, age time.Duration) {
	w.Helper()
	w.exec(`INSERT INTO parked (consumer, event_id, reason, next_at, parked_at, source, topic, type, subject, sequence, previous, recorded_at, database, timeout_key, timeout_name, content_type, body)
		VALUES ('billing', gen_random_uuid(), $1, CASE WHEN $1 = 'dead' THEN 'infinity' ELSE now() END, now() - $2::interval,
		'shop', 'orders', 'order.placed', 'o-1', 2, 1, now(), '', '', '', 'application/json', '{"card":"4711"}')`, reason, age)
}

// What the broker has deleted unread is found, too.
func TestConsumerLossOfDeletedMessages(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"consumer-loss"}}}
	w.database()
	w.broker(rocketmqtest.Config{MaxMessageSize: 1 << 10, MaxBytes: 4 << 10})
	w.mq.CreateTopic("orders", 1)
	w.consumer("billing", "orders")
	w.behind(20, 1)
	findings := w.examine().Findings()
	if len(findings) != 1 || !strings.Contains(findings[0].Observed, "deleted by the broker") || !strings.Contains(findings[0].Mend, "rocketflow resend --topic orders") {
		t.Errorf("got %+v", findings)
	}
}

// The group is the one that the consumer has recorded, whatever its name.
func TestGroupOfAConsumerIsRead(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"consumer-absent", "consumer-lag", "consumer-group-shared", "consumer-subscriptions"}}}
	w.database()
	w.broker()
	w.mq.CreateTopic("orders", 1)
	w.consumer("billing", "orders")
	w.exec("UPDATE consumer SET group_name = 'acme_billing'")
	w.behindIn("acme_billing", 3, 1)
	w.mq.FastForward(10 * time.Minute)
	r := w.examine()
	if findings := r.Findings(); len(findings) != 1 || findings[0].Code != "consumer-lag" || !strings.Contains(findings[0].Mend, "-g acme_billing") {
		t.Errorf("got %+v", findings)
	}
	if unknown := r.Unknown(); len(unknown) > 0 {
		t.Errorf("got %+v", unknown)
	}
}

// A group that has never committed is never up to date where there is, or was, something to read.
func TestGroupThatNeverCommitted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent    int
		later   time.Duration
		small   bool   // the broker deletes what is too much
		finding string // of the two checks: code and text
		unknown string
	}{
		"an empty topic":        {},
		"young messages":        {sent: 3},
		"old messages":          {sent: 3, later: 10 * time.Minute, finding: "consumer-lag: 3 unread messages of topic orders, some older than"},
		"soon deleted messages": {sent: 3, later: 60 * time.Hour, finding: "unread messages of topic orders will be deleted"},
		"deleted messages":      {sent: 20, small: true, unknown: "consumer-loss: group shop-billing has never committed an offset in a queue of topic orders"},
	} {
		for on, version := range map[string]rocketmqtest.Version{"5.3": rocketmqtest.RocketMQ53, "4.9": rocketmqtest.RocketMQ49} {
			t.Run(name+" on "+on, func(t *testing.T) {
				t.Parallel()
				w := &world{T: t, config: Config{Only: []string{"consumer-lag", "consumer-loss"}}}
				w.database()
				config := rocketmqtest.Config{Version: version}
				if c.small {
					config.MaxMessageSize, config.MaxBytes = 1<<10, 4<<10
				}
				w.broker(config)
				w.mq.CreateTopic("orders", 1)
				w.consumer("billing", "orders")
				w.join("shop-billing", "127.0.0.1@shop-consumer-"+uuid.NewString(), "orders")
				w.send("orders", c.sent, nil)
				w.mq.FastForward(c.later)
				r := w.examine()
				for want, got := range map[string][]Result{c.finding: r.Findings(), c.unknown: r.Unknown()} {
					is := func(r Result) bool { return strings.Contains(r.Code+": "+r.Observed, want) }
					if want == "" && len(got) > 0 && c.finding+c.unknown == "" || want != "" && !slices.ContainsFunc(got, is) {
						t.Errorf("want %q, got %+v", want, got)
					}
				}
			})
		}
	}
}

// Two schemas whose consumers have the same group are found without a broker's help.
func TestTwoSchemasWithOneGroup(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"consumer-group-shared"}}}
	w.broker()
	for range 2 {
		w.database()
		w.consumer("billing", "orders")
	}
	findings := w.examine().Findings()
	if len(findings) != 2 || !strings.Contains(findings[0].Observed, "group shop-billing is also that of a consumer of") {
		t.Errorf("got %+v", findings)
	}
}

func TestServiceOf(t *testing.T) {
	t.Parallel()
	id := uuid.NewString()
	for client, want := range map[string]string{
		"shop-consumer-" + id:            "shop",
		"10.0.0.1@shop-consumer-" + id:   "shop",
		"my-consumer-app-consumer-" + id: "my-consumer-app",
		"10.0.0.1@4711":                  "10.0.0.1@4711",
		"":                               "",
	} {
		if got := serviceOf(client); got != want {
			t.Errorf("%s: got %s, want %s", client, got, want)
		}
	}
}
