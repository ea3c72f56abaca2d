package rocketmqtest

import (
	"maps"
	"slices"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// connection is a client in a response.
type connection struct {
	ClientID string `json:"clientId"`
	Address  string `json:"clientAddr"`
	Language string `json:"language"`
	Version  int    `json:"version"`
}

func connectionOf(c *session, client string) connection {
	return connection{ClientID: client, Address: c.remote.String(), Language: c.language, Version: c.version}
}

// consumerConnections responds with the members of a consumer group and what it subscribes to, which is one table for all members:
// that of the last heartbeat (203).
func (s *Server) consumerConnections(r *request) *remoting.Command {
	if refusal := r.requireFields("consumerGroup"); refusal != nil {
		return refusal
	}
	name := r.Ext["consumerGroup"]
	g := s.groups[name]
	if g == nil || len(g.members) == 0 {
		return r.refuse(remoting.ConsumerNotOnline, "the consumer group[%s] not online", name)
	}
	connections := []connection{}
	for _, m := range g.members {
		connections = append(connections, connectionOf(m.session, m.client))
	}
	return r.respondJSON(map[string]any{
		"connectionSet": connections, "subscriptionTable": g.subscribed,
		"consumeType": g.consumeType, "messageModel": g.model, "consumeFromWhere": g.from,
	})
}

// producerConnections responds with the members of a producer group (204).
func (s *Server) producerConnections(r *request) *remoting.Command {
	if refusal := r.requireFields("producerGroup"); refusal != nil {
		return refusal
	}
	name := r.Ext["producerGroup"]
	if len(s.producers[name]) == 0 {
		return r.refuse(remoting.SystemError, "the producer group[%s] not exist", name)
	}
	connections := []connection{}
	for _, c := range s.producers[name] {
		connections = append(connections, connectionOf(c, c.client))
	}
	return r.respondJSON(map[string]any{"connectionSet": connections})
}

// groupsOfTopic responds with the groups that have offsets in a topic. From version 5 on the topic's own name is in the list if a
// group subscribes to it, instead of the group's (300).
func (s *Server) groupsOfTopic(r *request) *remoting.Command {
	if refusal := r.requireFields("topic"); refusal != nil {
		return refusal
	}
	name := r.Ext["topic"]
	found := map[string]struct{}{}
	for _, g := range s.groups {
		if _, subscribes := g.subscribed[name]; subscribes && len(g.members) > 0 {
			if s.config.Version == RocketMQ53 { // whose real one takes the topic's name for the group's
				found[name] = struct{}{}
			} else {
				found[g.name] = struct{}{}
			}
		}
		for q := range g.offsets {
			if q.topic.name == name {
				found[g.name] = struct{}{}
			}
		}
	}
	list := slices.Sorted(maps.Keys(found))
	if list == nil {
		list = []string{}
	}
	return r.respondJSON(map[string]any{"groupList": list})
}
