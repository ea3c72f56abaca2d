package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

var consumerChecks = []check{
	{
		Check: Check{Code: "consumer-absent", Group: Consumers, Severity: Critical,
			Title: "Each consumer has a member at each broker",
			About: `A consumer that the schema has a row of is in no process now: its events wait at the broker, for fileReservedTime at most.

Mend: start the process that registers the consumer. If it is gone for good, retire its handlers: rocketflow redrive retire.`},
		schema: withCluster(consumerAbsent),
	},
	{
		Check: Check{Code: "consumer-lag", Group: Consumers, Severity: Warning,
			Title: "Consumers are up to date",
			About: `There are messages in the broker that are older than 5 minutes (Expect.MaxLag) and that the group hasn't committed. A consumer commits what it has handled or parked, so it is slow, stopped or paused, waits for Postgres, or the broker refuses its reads. A group that has never committed has read nothing.

Mend: see consumer-absent; else more lanes or processes, or faster handlers.`},
		schema: withCluster(consumerLag),
	},
	{
		Check: Check{Code: "consumer-loss", Group: Consumers, Severity: Critical,
			Title: "No consumer is about to miss events, or has missed any",
			About: `The broker has deleted messages that the group hasn't read, or will soon: three quarters of fileReservedTime are over. Events of a stream are requested again from the publisher when a later one shows the gap; the last of a stream, and events without order, are not.

Mend: let the consumer catch up, and raise fileReservedTime until it has. What was missed: rocketflow resend of the publisher, as long as its outbox keeps the events.`},
		schema: withCluster(consumerLoss),
	},
	{
		Check: Check{Code: "consumer-inbox-retention", Group: Consumers, Severity: Warning,
			Title: "The inbox remembers events for as long as the broker keeps them",
			About: `The inbox records for handlers.Config.InboxRetention that an event without order was handled. An event that is older when it comes can't be told from a duplicate: it becomes a dead letter, not handled. If the broker keeps messages for longer than that, a consumer that was stopped for long makes dead letters of events that it should handle.

Mend: raise InboxRetention above the broker's fileReservedTime, or lower that.`},
		schema: withCluster(consumerInboxRetention),
	},
	{
		Check: Check{Code: "consumer-subscriptions", Group: Consumers, Severity: Critical,
			Title: "The members of a group subscribe to the topics that the consumer reads",
			About: `A broker keeps one list of topics for a group: that of its last heartbeat. If members subscribe to different topics, queues of some topics are given to members that don't read them, and their events wait. The check compares the broker's list at this moment with the topics of the handlers that the consumer has registered in Postgres.

During a deploy that adds a topic, the members differ for as long as the deploy takes.

Mend: let all processes of the consumer register the same topics, and stop what else uses the group; retire the handlers of a topic that the consumer no longer reads.`},
		schema: withCluster(consumerSubscriptions),
	},
	{
		Check: Check{Code: "consumer-group-shared", Group: Consumers, Severity: Critical,
			Title: "Each group belongs to one service",
			About: `Two services that use one group share its messages: each gets a part of the events, and neither all. The check looks at the names of services in the ids of the members, and for two schemas whose consumers have the same group. Two installations on one RocketMQ need a namespace each (ROCKETMQ_NAMESPACE).

Mend: give one of the services another name or namespace.`},
		schema: withCluster(consumerGroupShared),
	},
	{
		Check: Check{Code: "consumer-dead-letters", Group: Consumers, Severity: Critical,
			Title: "No stream is held by a dead letter",
			About: `A handler failed until its attempts were used up, or said that it can never succeed. The event waits for an operator, and holds the later events of its stream.

Mend: find the cause in the error, mend it, and retry; or discard the event.`},
		schema: consumerDeadLetters,
	},
	{
		Check: Check{Code: "consumer-parked", Group: Consumers, Severity: Warning,
			Title: "No event is parked for long",
			About: `A parked event waits for its next attempt (retry), for a missing predecessor (gap), or behind a handler that takes long (busy). Longer than an hour (Expect.MaxParked) means that it fails again and again, or that nobody can send the predecessor.

Mend: rocketflow redrive list shows the errors; rocketflow redrive accept lets a stream go on without the missing event.`},
		schema: consumerParked,
	},
	{
		Check: Check{Code: "consumer-unhandled", Group: Consumers, Severity: Critical,
			Title: "No event waits for a handler that no process has",
			About: `An event of a type that the consumer has registered is parked because the processes that run now have no handler for it: an older version runs, or the handler was removed.

Mend: start the version that has the handler; or retire it, so that such events are skipped.`},
		schema: consumerUnhandled,
	},
	{
		Check: Check{Code: "consumer-paused", Group: Consumers, Severity: Warning,
			Title: "Nothing is paused",
			About: `An operator has paused a consumer, one of its handlers, or the streams of a subject. The events of a paused consumer wait at the broker, for fileReservedTime at most; those of a handler or a stream are parked in Postgres.

Mend: resume it, once the reason for the pause is gone: rocketflow resume.`},
		schema: consumerPaused,
	},
}

// eachConsumer calls look for each consumer and broker, and returns its results, or fine if there are none.
func eachConsumer(s *schema, m *cluster, fine string, look func(c consumer, group string, b *master) []Result) (results []Result) {
	for _, c := range s.consumers {
		group := m.wire(c.group)
		for _, r := range m.each(func(b *master) []Result { return look(c, group, b) }) {
			results = append(results, r.about(fmt.Sprintf("consumer %s of %s at %s", c.name, s.subject(), r.Subject)))
		}
	}
	if len(results) == 0 {
		return one(ok("%s: %s", quantity(int64(len(s.consumers)), "consumer"), fine))
	}
	return results
}

// members asks a broker for the members of a group; none is no error.
func (b *master) members(ctx context.Context, group string) (c connections, err error) {
	err = b.decode(ctx, &c, remoting.ConsumerConnections, map[string]string{"consumerGroup": group})
	if refusedWith(err, remoting.ConsumerNotOnline) {
		return connections{}, nil
	}
	return c, err
}

func consumerAbsent(ctx context.Context, s *schema, m *cluster) []Result {
	return eachConsumer(s, m, "each has members", func(c consumer, group string, b *master) []Result {
		members, err := b.members(ctx, group)
		switch {
		case err != nil:
			return one(unknown("members can't be listed: %s", reason(err)))
		case len(members.Set) == 0:
			mend := "# start a process of service " + safe(s.source) + " that registers consumer " + safe(c.name) + "; or, if it is gone for good:"
			for _, h := range c.handlers[:min(len(c.handlers), 5)] {
				mend += fmt.Sprintf("\nrocketflow redrive retire --consumer %s --topic %s --type %s%s", shell(c.name), shell(h.topic), shell(h.event), s.flag())
			}
			return one(found("group "+group+" has no member", "a process that runs the consumer", mend))
		}
		return nil
	})
}

// queueState is how far a group is in a queue.
type queueState struct {
	first, end, committed int64
	known                 bool // the group has committed an offset, else committed is first: there a member would begin
}

// queues calls look for each queue of a consumer's topics on a broker.
func (m *cluster) queues(ctx context.Context, c consumer, group string, b *master, look func(topic string, queue map[string]string, q queueState) error) error {
	for _, name := range c.topics {
		route, err := m.route(ctx, m.wire(name))
		if errors.Is(err, broker.ErrTopicNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, data := range route.Queues {
			if data.Broker != b.name {
				continue
			}
			for id := range min(data.Read, maxList) {
				queue := map[string]string{"topic": m.wire(name), "queueId": strconv.Itoa(id), "consumerGroup": group, "setZeroIfNotFound": "false"}
				var q queueState
				q.committed, err = b.offset(ctx, remoting.QueryConsumerOffset, queue)
				if err != nil && !refusedWith(err, remoting.QueryNotFound) {
					return err
				}
				// RocketMQ 4 answers 0 where the group has none; consumers commit no 0.
				q.known = err == nil && q.committed >= 0 && (q.committed > 0 || b.version >= remoting.FirstOf500)
				if q.first, err = b.offset(ctx, remoting.MinOffset, queue); err != nil {
					return err
				}
				if q.end, err = b.offset(ctx, remoting.MaxOffset, queue); err != nil {
					return err
				}
				if !q.known {
					q.committed = q.first
				}
				if err := look(name, queue, q); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// storedSince returns the offset of the first message of a queue that was stored at an age or less.
func (b *master) storedSince(ctx context.Context, queue map[string]string, age time.Duration) (int64, error) {
	request := maps.Clone(queue)
	request["timestamp"] = strconv.FormatInt(time.Now().Add(b.lag-age).UnixMilli(), 10)
	return b.offset(ctx, remoting.SearchOffset, request)
}

func consumerLag(ctx context.Context, s *schema, m *cluster) []Result {
	longest := s.database.x.config.Expect.MaxLag
	return eachConsumer(s, m, "all up to date", func(c consumer, group string, b *master) []Result {
		behind := map[string]int64{}
		err := m.queues(ctx, c, group, b, func(topic string, queue map[string]string, q queueState) error {
			if q.committed >= q.end {
				return nil
			}
			recent, err := b.storedSince(ctx, queue, longest)
			if err == nil && recent > max(q.committed, q.first) { // what is deleted is no lag: see consumer-loss
				behind[topic] += q.end - max(q.committed, q.first)
			}
			return err
		})
		if err != nil {
			return one(unknown("offsets can't be read: %s", reason(err)))
		}
		return perTopic(behind, func(topic string, n int64) Result {
			return found(fmt.Sprintf("%s of topic %s, some older than %s", quantity(n, "unread message"), topic, about(longest)), "none older than "+about(longest),
				fmt.Sprintf("mqadmin consumerProgress -n %s -g %s", m.namesrv(), shell(group)))
		})
	})
}

// perTopic returns a finding for each topic, in order.
func perTopic(counts map[string]int64, finding func(topic string, n int64) Result) (results []Result) {
	for _, topic := range slices.Sorted(maps.Keys(counts)) {
		results = append(results, finding(topic, counts[topic]))
	}
	return results
}

func consumerLoss(ctx context.Context, s *schema, m *cluster) []Result {
	return eachConsumer(s, m, "none is about to miss events", func(c consumer, group string, b *master) []Result {
		if b.settingsErr != nil {
			return one(unknown("the broker's settings can't be read: %s", reason(b.settingsErr)))
		}
		set := &settings{of: b.settings}
		kept := set.duration("fileReservedTime", time.Hour)
		if set.missing != "" {
			return one(unknown("the broker has no setting %s", set.missing))
		}
		lost, soon, never := map[string]int64{}, map[string]int64{}, map[string]int64{}
		err := m.queues(ctx, c, group, b, func(topic string, queue map[string]string, q queueState) error {
			if !q.known {
				never[topic] += q.first
			}
			if q.committed >= q.end {
				return nil
			}
			if q.committed < q.first {
				lost[topic] += q.first - q.committed
				return nil
			}
			recent, err := b.storedSince(ctx, queue, kept/4*3)
			if err == nil && recent > q.committed {
				soon[topic] += recent - q.committed
			}
			return err
		})
		if err != nil {
			return one(unknown("offsets can't be read: %s", reason(err)))
		}
		results := perTopic(lost, func(topic string, n int64) Result {
			return found(fmt.Sprintf("%s of topic %s deleted by the broker", quantity(n, "unread message"), topic), "every message read before it is deleted",
				s.database.x.resend(ctx, topic))
		})
		maps.DeleteFunc(never, func(_ string, deleted int64) bool { return deleted == 0 })
		results = append(results, perTopic(never, func(topic string, n int64) Result {
			r := unknown("group %s has never committed an offset in a queue of topic %s, of which the broker has deleted %s: nobody knows whether the consumer should have read them",
				group, topic, quantity(n, "message"))
			r.Mend = "# see in the service's log whether the broker refuses its reads; a member that reads commits within seconds:\n" +
				fmt.Sprintf("mqadmin consumerProgress -n %s -g %s", m.namesrv(), shell(group))
			return r
		})...)
		return append(results, perTopic(soon, func(topic string, n int64) Result {
			return found(fmt.Sprintf("%s of topic %s will be deleted within %s", quantity(n, "unread message"), topic, about(kept/4)), "every message read before it is deleted",
				"# until the consumer has caught up:\n"+b.change("fileReservedTime", hours(2*kept)))
		})...)
	})
}

// resend returns the commands that send the events of a topic again, on the examined schemas that publish them.
func (x *examination) resend(ctx context.Context, topic string) string {
	var commands []string
	resend := fmt.Sprintf("rocketflow resend --topic %s --since %s", shell(topic), x.config.Expect.OutboxRetention)
	for _, s := range x.schemas() {
		if s.err != nil {
			continue
		}
		if published, err := list[string](ctx, s.database, s.sql, "PublishedTopics", maxList); err == nil && slices.Contains(published, topic) {
			commands = append(commands, "# in database "+safe(s.database.name)+":", resend+s.flag())
		}
	}
	if commands == nil {
		return "# on the schema of the publisher, which was not examined:\n" + resend
	}
	return strings.Join(commands, "\n")
}

func consumerInboxRetention(_ context.Context, s *schema, m *cluster) (results []Result) {
	var shortest *consumer
	for i, c := range s.consumers {
		if shortest == nil || c.retention < shortest.retention {
			shortest = &s.consumers[i]
		}
	}
	if shortest == nil {
		return one(ok("the schema has no consumer"))
	}
	return m.eachSettings(func(b *master, set *settings) []Result {
		kept := set.duration("fileReservedTime", time.Hour)
		observed := fmt.Sprintf("the inbox of consumer %s remembers %s, broker %s keeps messages for %s", shortest.name, about(shortest.retention), b.name, about(kept))
		if shortest.retention >= kept {
			return one(ok("%s", observed).about(s.subject()))
		}
		return one(found(observed, "an inbox that remembers for at least as long as the broker keeps",
			fmt.Sprintf("# handlers.Config.InboxRetention: %s, or:\n%s", kept, b.change("fileReservedTime", strconv.FormatInt(int64(shortest.retention/time.Hour), 10)))).about(s.subject()))
	})
}

func consumerSubscriptions(ctx context.Context, s *schema, m *cluster) []Result {
	return eachConsumer(s, m, "all subscribe to their topics", func(c consumer, group string, b *master) []Result {
		members, err := b.members(ctx, group)
		switch {
		case err != nil:
			return one(unknown("members can't be listed: %s", reason(err)))
		case len(members.Set) == 0:
			return nil // consumer-absent says so
		}
		var has, wants []string
		for topic := range members.Subscriptions {
			if !strings.HasPrefix(topic, "%RETRY%") {
				has = append(has, topic)
			}
		}
		for _, topic := range c.topics {
			wants = append(wants, m.wire(topic))
		}
		slices.Sort(has)
		slices.Sort(wants)
		if slices.Equal(has, wants) {
			return nil
		}
		return one(found(fmt.Sprintf("group %s subscribes to %s", group, cmp.Or(strings.Join(has, ", "), "nothing")), "the topics that the consumer has registered: "+cmp.Or(strings.Join(wants, ", "), "none"),
			fmt.Sprintf("# which member differs:\nmqadmin consumerStatus -n %s -g %s", m.namesrv(), shell(group))))
	})
}

func consumerGroupShared(ctx context.Context, s *schema, m *cluster) []Result {
	var results []Result
	for _, c := range s.consumers {
		for _, other := range s.database.x.schemas() {
			if other.err == nil && other.id != s.id && other.hasGroup(c.group) {
				results = append(results, found(fmt.Sprintf("group %s is also that of a consumer of %s", c.group, other.subject()), "a group for one service",
					"# give the two installations a namespace each:\nROCKETMQ_NAMESPACE=<name>").about(fmt.Sprintf("consumer %s of %s", c.name, s.subject())))
			}
		}
	}
	others := eachConsumer(s, m, "each group has members of one service", func(_ consumer, group string, b *master) []Result {
		members, err := b.members(ctx, group)
		if err != nil {
			return one(unknown("members can't be listed: %s", reason(err)))
		}
		services := map[string]bool{}
		for _, c := range members.Set {
			services[serviceOf(c.ClientID)] = true
		}
		if len(services) < 2 {
			return nil
		}
		return one(found(fmt.Sprintf("group %s has members of %s", group, sorted(slices.Collect(maps.Keys(services)), ", ")), "members of one service",
			fmt.Sprintf("mqadmin consumerConnection -n %s -g %s", m.namesrv(), shell(group))))
	})
	if len(results) > 0 && len(others) == 1 && others[0].Status == OK {
		return results
	}
	return append(results, others...)
}

func (s *schema) hasGroup(group string) bool {
	return slices.ContainsFunc(s.consumers, func(c consumer) bool { return c.group == group })
}

// serviceOf returns the name of the service in the id of a client of rocketflow, [host@]service-consumer-uuid, or else the whole id.
func serviceOf(client string) string {
	if i := strings.LastIndexByte(client, '@'); i >= 0 && strings.Contains(client[i:], "-consumer-") {
		client = client[i+1:]
	}
	const uuidLength = 36
	if i := strings.LastIndex(client, "-consumer-"); i >= 0 && len(client)-i == len("-consumer-")+uuidLength {
		return client[:i]
	}
	return client
}
