package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

var outboxChecks = []check{
	{
		Check: Check{Code: "outbox-owed", Group: Outbox, Severity: Critical,
			Title: "Owed events are young",
			About: `An event is owed until the broker has it. In a running service that takes milliseconds; while the broker is away it takes as long as that. Rejected events have a check of their own, outbox-rejected.

Mend: see that a process of the service runs (outbox-sweep) and reaches the broker (broker-master); rocketflow inspect backlog shows the topics.`},
		schema: outboxOwed,
	},
	{
		Check: Check{Code: "outbox-sweep", Group: Outbox, Severity: Critical,
			Title: "A process sweeps the outbox where events are owed",
			About: `One process of a service at a time holds the lease of the sweep, which sends what processes that died have left. If nobody holds it, no process of the service runs, or none reaches Postgres.

Mend: start the service.`},
		schema: outboxSweep,
	},
	{
		Check: Check{Code: "outbox-rejected", Group: Outbox, Severity: Critical,
			Title: "The broker rejects no events",
			About: `The broker answered, and refused: a topic or a right is missing, or an event is too large. The events stay owed and are tried again from time to time; consumers of their streams wait.

Mend: make the topic or grant the right, then retry; or redirect or discard the events.`},
		schema: outboxRejected,
	},
	{
		Check: Check{Code: "outbox-backlog", Group: Outbox, Severity: Critical,
			Title: "The backlog is far from back-pressure",
			About: `When outbox.Config.MaxBacklog events are owed, Publish returns a BackpressureError and transactions fail. A finding comes at four fifths of it.

Mend: see outbox-owed for why events are owed.`},
		schema: outboxBacklog,
	},
	{
		Check: Check{Code: "outbox-retention", Group: Outbox, Severity: Warning,
			Title: "Old rows are deleted",
			About: `A running service makes and drops partitions and deletes what is too old, once an hour. If it doesn't, tables grow without a bound.

Mend: see the log of the service for why retention fails; often EXECUTE on drop_partition is missing (postgres-rights).`},
		schema: outboxRetention,
	},
	{
		Check: Check{Code: "outbox-producer", Group: Outbox, Severity: Critical,
			Title: "A running service answers check-backs",
			About: `The broker asks the service's producer group about half messages that a process has left. If no process of the group is connected, nobody answers: the sweep sends what committed, later, and after transactionCheckMax check-backs the broker gives up.

The group is named after the service. One that outbox.Config.Group names is known to a running service's doctor; elsewhere --producer-group, or Database.ProducerGroup, names it.

Mend: see the log of the service for why it isn't connected to the broker.`},
		schema: withCluster(outboxProducer),
	},
	{
		Check: Check{Code: "outbox-unread", Group: Outbox, Severity: Warning,
			Title: "Somebody reads each topic that the service publishes to",
			About: `No consumer group has an offset in the topic, or subscribes to it: a consumer was never started, or reads another topic. Events are kept by the broker for fileReservedTime and then lost for a consumer that comes later.

Mend: start the consumer; or stop publishing to the topic.`},
		schema: withCluster(outboxUnread),
	},
}

func outboxOwed(ctx context.Context, s *schema) []Result {
	b, err := s.readBacklog(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	now, err := s.database.now(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	rejected, err := s.rejected(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	longest := s.database.x.config.Expect.MaxOwed
	var results []Result
	total := int64(0)
	for _, o := range b.Owed {
		total += o.Events
		if now.Sub(o.Oldest) <= longest || slices.ContainsFunc(rejected, func(r rejection) bool { return r.Topic == o.Topic }) {
			continue
		}
		results = append(results, found(fmt.Sprintf("%s of topic %s owed, the oldest for %s", quantity(o.Events, "event"), o.Topic, about(now.Sub(o.Oldest))),
			fmt.Sprintf("at most %s", about(longest)), "rocketflow inspect backlog"+s.flag()))
	}
	if len(results) == 0 {
		return one(ok("%s owed", quantity(total, "event")))
	}
	return results
}

func outboxSweep(ctx context.Context, s *schema) []Result {
	if s.swept {
		return one(ok("a process sweeps"))
	}
	b, err := s.readBacklog(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	owed := int64(0)
	for _, o := range b.Owed {
		owed += o.Events
	}
	if owed == 0 {
		return one(ok("no process sweeps, and nothing is owed"))
	}
	return one(found("no process sweeps, and "+quantity(owed, "event")+" owed", "a running process of service "+cmp.Or(s.source, "?"), "# start a process of service "+safe(cmp.Or(s.source, "?"))))
}

// rejection is what the broker rejects of a topic.
type rejection struct {
	Topic  string
	All    bool
	Reason string
	Events int64
}

func (s *schema) rejected(ctx context.Context) ([]rejection, error) {
	return list[rejection](ctx, s.database, s.sql, "Rejected", maxList, maxCount)
}

func outboxRejected(ctx context.Context, s *schema) (results []Result) {
	rejected, err := s.rejected(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, r := range rejected {
		what := quantity(r.Events, "event") + " of topic " + r.Topic + " rejected"
		if r.All {
			what = "all events of topic " + r.Topic + " rejected, " + quantity(r.Events, "event") + " so far"
		}
		results = append(results, found(what+": "+r.Reason, "no rejected events", "# mend the cause, then:\nrocketflow owed retry --topic "+shell(r.Topic)+s.flag()))
	}
	if len(results) == 0 {
		return one(ok("nothing is rejected"))
	}
	return results
}

func outboxBacklog(ctx context.Context, s *schema) []Result {
	b, err := s.readBacklog(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	owed, most := int64(0), s.database.x.config.Expect.MaxBacklog
	for _, o := range b.Owed {
		owed += o.Events
	}
	if owed < most-most/5 {
		return one(ok("%s owed, of %d", quantity(owed, "event"), most))
	}
	return one(found(fmt.Sprintf("%s owed", quantity(owed, "event")), fmt.Sprintf("fewer than %d: from %d on Publish fails", most-most/5, most), "rocketflow inspect backlog"+s.flag()))
}

func outboxRetention(ctx context.Context, s *schema) []Result {
	const longest = 3 * time.Hour
	var begun, claimed float64
	if err := s.database.row(ctx, s.sql, "RetentionAge", nil, &begun); err != nil {
		return one(s.cannot(err))
	}
	if err := s.database.row(ctx, s.sql, "ClaimedAge", nil, &claimed); err != nil {
		return one(s.cannot(err))
	}
	switch {
	case !s.swept:
		return one(ok("no process of the service runs"))
	case begun < 0 && seconds(claimed) < longest:
		return one(ok("the service has just started for the first time"))
	case begun >= 0 && seconds(begun) < longest:
		return one(ok("old rows were last deleted %s ago", about(seconds(begun))))
	}
	observed := "no process has ever deleted old rows"
	if begun >= 0 {
		observed = "old rows were last deleted " + about(seconds(begun)) + " ago"
	}
	return one(found(observed, "once an hour", "# see the service's log, and its rights:\nrocketflow doctor --only postgres-rights"+s.flag()))
}

func outboxProducer(ctx context.Context, s *schema, m *cluster) []Result {
	switch {
	case s.source == "":
		return one(ok("no service has started on the schema yet"))
	case !s.swept:
		return one(ok("no process of the service runs"))
	}
	group := m.wire(s.producerGroup())
	return m.each(func(b *master) []Result {
		var connected connections
		err := b.decode(ctx, &connected, remoting.ProducerConnections, map[string]string{"producerGroup": group})
		switch {
		case refusedWith(err, remoting.SystemError) || err == nil && len(connected.Set) == 0:
			return one(found("no process is connected in producer group "+group, "a process that answers check-backs", "# see the service's log for its connection to broker "+safe(b.name)))
		case err != nil:
			return one(unknown("%s", reason(err)))
		}
		return one(ok("%s in producer group %s", quantity(int64(len(connected.Set)), "connection"), group))
	})
}

func outboxUnread(ctx context.Context, s *schema, m *cluster) (results []Result) {
	topics, err := list[string](ctx, s.database, s.sql, "PublishedTopics", maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, name := range topics {
		read, failed := false, Result{}
		for _, r := range m.each(func(b *master) []Result {
			var groups struct {
				List []string `json:"groupList"`
			}
			if err := b.decode(ctx, &groups, remoting.GroupsOfTopic, map[string]string{"topic": m.wire(name)}); err != nil {
				return one(unknown("readers of topic %s can't be listed: %s", name, reason(err)))
			}
			read = read || len(groups.List) > 0
			return nil
		}) {
			failed = r
		}
		switch {
		case read:
		case failed.Status == Unknown:
			results = append(results, failed)
		default:
			results = append(results, found("nobody reads topic "+name, "a consumer", "# start the service that consumes topic "+safe(name)))
		}
	}
	if len(results) == 0 {
		return one(ok("%s read", quantity(int64(len(topics)), "topic")))
	}
	return results
}

// connections are the clients of a group.
type connections struct {
	Set []struct {
		ClientID string `json:"clientId"`
		Address  string `json:"clientAddr"`
	} `json:"connectionSet"`
	Subscriptions map[string]struct {
		Topic string `json:"topic"`
	} `json:"subscriptionTable"`
}
