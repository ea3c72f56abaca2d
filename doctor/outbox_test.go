package doctor

import (
	"maps"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

func init() {
	maps.Copy(proofs, map[string]proof{
		"outbox-owed": {
			finding: func(w *world) {
				w.database()
				w.event("orders", time.Hour)
			}, says: "1 event of topic orders owed, the oldest for 1h0m", mends: "rocketflow inspect backlog --schema test_",
			ok: func(w *world) {
				w.database()
				w.event("orders", 0)
				acked := w.event("orders", time.Hour)
				w.exec("INSERT INTO outbox_ack (id) VALUES ($1)", acked)
			},
			unknown: (*world).poor,
		},
		"outbox-sweep": {
			finding: func(w *world) {
				w.database()
				w.event("orders", 0)
			}, says: "no process sweeps, and 1 event owed", mends: "start a process of service shop",
			ok: func(w *world) {
				w.database()
				w.lease("outbox sweep")
				w.event("orders", 0)
			},
			unknown: (*world).poor,
		},
		"outbox-rejected": {
			finding: func(w *world) {
				w.database()
				id := w.event("orders", time.Hour)
				w.exec("INSERT INTO outbox_rejected_topic (topic, reason, next_at) VALUES ('orders', 'topic not found', now())")
				w.exec("INSERT INTO outbox_rejected (id, topic, reason, next_at) VALUES ($1, 'orders', 'topic not found', 'infinity')", id)
			}, says: "all events of topic orders rejected, 1 event so far: topic not found", mends: "rocketflow owed retry --topic orders",
			ok:      func(w *world) { w.database() },
			unknown: (*world).poor,
		},
		"outbox-backlog": {
			finding: func(w *world) {
				w.database()
				w.config.Expect.MaxBacklog = 2
				w.event("orders", 0)
				w.event("orders", 0)
			}, says: "fewer than 2", mends: "rocketflow inspect backlog",
			ok:      func(w *world) { w.database() },
			unknown: (*world).poor,
		},
		"outbox-retention": {
			finding: func(w *world) {
				w.database()
				w.lease("outbox sweep")
				w.exec("UPDATE outbox_retention SET begun_at = now() - interval '9 h'")
			}, says: "last deleted 9h0m", mends: "postgres-rights",
			ok: func(w *world) {
				w.database()
				w.lease("outbox sweep")
				w.exec("UPDATE outbox_retention SET begun_at = now() - interval '1 h'")
			},
			unknown: (*world).poor,
		},
		"outbox-producer": {
			finding: func(w *world) {
				w.database()
				w.broker()
				w.lease("outbox sweep")
			}, says: "no process is connected in producer group shop", mends: "the service's log",
			ok: func(w *world) {
				w.database()
				w.broker()
				w.lease("outbox sweep")
				w.produce("shop")
				w.database().ProducerGroup = "acme" // another service
				w.lease("outbox sweep")
				w.produce("acme")
			},
			unknown: func(w *world) {
				w.database()
				w.broker()
				w.lease("outbox sweep")
				w.forbid(remoting.ProducerConnections)
			},
		},
		"outbox-unread": {
			finding: func(w *world) {
				w.database()
				w.broker()
				w.mq.CreateTopic("orders", 1)
				w.event("orders", 0)
			}, says: "nobody reads topic orders", mends: "start the service that consumes topic orders",
			ok: func(w *world) {
				w.database()
				w.broker()
				w.mq.CreateTopic("orders", 1)
				w.event("orders", 0)
				w.join("payment-billing", "payment-consumer-1", "orders")
			},
			unknown: func(w *world) {
				w.database()
				w.broker()
				w.event("orders", 0)
				w.forbid(remoting.GroupsOfTopic)
			},
		},
	})
}

// lease takes a lease for a minute, as a running service does.
func (w *world) lease(name string) {
	w.Helper()
	w.exec("INSERT INTO lease (name, holder, expires_at) VALUES ($1, gen_random_uuid(), now() + interval '1 min')", name)
}
