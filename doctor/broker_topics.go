package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// withCluster makes the function of a check that compares a schema with RocketMQ.
func withCluster(look func(context.Context, *schema, *cluster) []Result) func(context.Context, *schema) []Result {
	return func(ctx context.Context, s *schema) []Result {
		m := s.database.x.cluster
		switch {
		case m == nil:
			return one(unknown("no name server is named"))
		case m.err != nil:
			return one(unknown("%s", reason(m.err)))
		}
		return look(ctx, s, m)
	}
}

// withRoutes is withCluster for a check that can look at routes of topics where the brokers aren't listed.
func withRoutes(look func(context.Context, *schema, *cluster) []Result) func(context.Context, *schema) []Result {
	return func(ctx context.Context, s *schema) []Result {
		if m := s.database.x.cluster; m != nil && m.unlisted() {
			return look(ctx, s, m)
		}
		return withCluster(look)(ctx, s)
	}
}

func brokerTopics(ctx context.Context, s *schema, m *cluster) (results []Result) {
	topics, err := s.topics(ctx)
	if err != nil {
		return one(s.cannot(err))
	}
	if s.source != "" && len(topics) > 0 {
		topics = append(topics, rocketflow.MissingEventsTopic)
	}
	for _, name := range topics {
		route, err := m.route(ctx, m.wire(name))
		if err != nil && !errors.Is(err, broker.ErrTopicNotFound) {
			results = append(results, unknown("topic %s: %s", name, reason(err)))
			continue
		}
		brokers, mend := m.names(), fmt.Sprintf("mqadmin updateTopic -n %s -c %s -t %s -r %d -w %[4]d -p 6", m.namesrv(), shell(m.clusterName()), shell(m.wire(name)), queuesOf(route))
		if m.unlisted() {
			brokers, mend = brokersIn(route), "# create or change it where topics are created; rocketflow topics lists what is needed:\nrocketflow topics"+s.flag()
		}
		if fault := topicFault(route, brokers); fault != "" {
			results = append(results, found("topic "+name+" "+fault, "the topic on each broker, with the same numbers of queues, and permission 6 (reading and writing)", mend))
		}
	}
	switch {
	case len(results) == 0 && m.unlisted():
		return one(unknown("%s found by their routes; whether each broker has them isn't known: %s", quantity(int64(len(topics)), "topic"), reason(m.Unlisted)))
	case len(results) == 0:
		return one(ok("%s on all brokers alike", quantity(int64(len(topics)), "topic")))
	}
	return results
}

// brokersIn returns the names of the brokers of a route.
func brokersIn(route remoting.Route) (names []string) {
	for _, q := range route.Queues {
		names = append(names, q.Broker)
	}
	return names
}

// names returns the names of the brokers.
func (m *cluster) names() (names []string) {
	for _, b := range m.brokers {
		names = append(names, b.name)
	}
	return names
}

// namesrv returns the name servers as an argument of a command.
func (m *cluster) namesrv() string {
	return shell(strings.Join(m.NameServers, ";"))
}

// clusterName returns the name of the cluster that the brokers belong to.
func (m *cluster) clusterName() string {
	for _, s := range m.servers {
		for _, b := range s.cluster.Brokers {
			return b.Cluster
		}
	}
	return "DefaultCluster"
}

// topicFault says what is wrong with a topic on brokers; empty: nothing.
func topicFault(route remoting.Route, brokers []string) string {
	if len(route.Queues) == 0 {
		return "doesn't exist"
	}
	has := map[string]remoting.QueueData{}
	for _, q := range route.Queues {
		has[q.Broker] = q
	}
	first := route.Queues[0]
	for _, name := range brokers {
		q, ok := has[name]
		switch {
		case !ok:
			return "doesn't exist on broker " + name
		case q.Perm&(remoting.PermRead|remoting.PermWrite) != remoting.PermRead|remoting.PermWrite:
			return fmt.Sprintf("has permission %d on broker %s", q.Perm, name)
		case q.Read != q.Write:
			return fmt.Sprintf("has %d queues for reading and %d for writing on broker %s", q.Read, q.Write, name)
		case q.Read != first.Read:
			return fmt.Sprintf("has %d queues on broker %s and %d on broker %s", first.Read, first.Broker, q.Read, name)
		}
	}
	return ""
}

// queuesOf returns the largest number of queues that a topic has on a broker, or the number for a new topic.
func queuesOf(route remoting.Route) int {
	n := 0
	for _, q := range route.Queues {
		n = max(n, q.Read, q.Write)
	}
	if n == 0 {
		return 4
	}
	return n
}

func brokerPermission(ctx context.Context, s *schema, m *cluster) (results []Result) {
	topics, err := list[string](ctx, s.database, s.sql, "PublishedTopics", maxList)
	if err != nil {
		return one(s.cannot(err))
	}
	for _, name := range topics {
		route, err := m.route(ctx, m.wire(name))
		if err != nil {
			results = append(results, unknown("topic %s: %s", name, reason(err)))
			continue
		}
		results = append(results, m.each(func(b *master) []Result {
			if !slices.ContainsFunc(route.Queues, func(q remoting.QueueData) bool { return q.Broker == b.name }) {
				return nil
			}
			err := b.probe(ctx, m.wire(name), m.wire(s.producerGroup()))
			switch {
			case err == nil:
				return nil
			case errors.Is(err, broker.ErrUnauthorized):
				return one(found(fmt.Sprintf("a half message to topic %s is refused: %s", name, err), "the right to publish",
					fmt.Sprintf("mqadmin createAcl -n %s -c %s -s %s -r %s -a Pub -d Allow", m.namesrv(), shell(m.clusterName()), shell("User:"+cmp.Or(m.AccessKey, "USER")), shell("Topic:"+m.wire(name)))))
			}
			return one(unknown("topic %s: %s", name, reason(err)))
		})...)
	}
	if len(results) == 0 {
		return one(ok("half messages to %s are taken", quantity(int64(len(topics)), "topic")))
	}
	return results
}
