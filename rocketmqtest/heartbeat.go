package rocketmqtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// group is a consumer group. It is created by its first heartbeat, pull, lock or send-back, and never deleted.
type group struct {
	name    string
	members []*member // by their ids
	offsets map[*queue]int64
	resets  map[*queue]int64 // that the next pull or request for the offset is told
	locks   map[queueName]lock

	// of the last heartbeat that named the group
	subscribed               map[string]subscription // by topic
	consumeType, model, from string
}

// member is a consumer of a group on a connection. A consumer that has reconnected is listed twice until its old connection
// ends.
type member struct {
	client        string // its id in the last heartbeat that named this group
	session       *session
	subscriptions map[string]subscription // by topic
}

// subscription is a topic and filter in a heartbeat.
type subscription struct {
	Topic      string `json:"topic"`
	Expression string `json:"subString"`
	Type       string `json:"expressionType"`
	Version    int64  `json:"subVersion"`
	ClassMode  bool   `json:"classFilterMode"`
	Tags       []any  `json:"tagsSet"`
	Codes      []any  `json:"codeSet"`
}

// heartbeatBody is the body of a heartbeat.
type heartbeatBody struct {
	ClientID  string `json:"clientID"`
	Producers []struct {
		Group string `json:"groupName"`
	} `json:"producerDataSet"`
	Consumers []struct {
		Group         string         `json:"groupName"`
		Type          string         `json:"consumeType"`
		From          string         `json:"consumeFromWhere"`
		Model         string         `json:"messageModel"`
		Subscriptions []subscription `json:"subscriptionDataSet"`
	} `json:"consumerDataSet"`
}

// decodeHeartbeat decodes the body of a heartbeat.
func decodeHeartbeat(body []byte) (heartbeatBody, error) {
	var h heartbeatBody
	if err := json.Unmarshal(body, &h); err != nil {
		return h, fmt.Errorf("%w heartbeat: %w", remoting.ErrMalformed, err)
	}
	return h, nil
}

// heartbeat registers the groups that a client produces and consumes for (34).
func (s *Server) heartbeat(r *request) *remoting.Command {
	h, err := decodeHeartbeat(r.Body)
	if err != nil {
		return r.refuse(remoting.SystemError, "%v", err)
	}
	r.from.client, r.from.language, r.from.version = h.ClientID, r.Language, r.Version
	for _, p := range h.Producers {
		if !slices.Contains(s.producers[p.Group], r.from) {
			s.producers[p.Group] = append(s.producers[p.Group], r.from)
		}
	}
	for _, c := range h.Consumers {
		g := s.group(c.Group)
		s.systemTopicOf(retryPrefix + c.Group)
		m := g.memberOn(r.from)
		changed := m == nil
		if changed {
			m = &member{session: r.from}
			g.members = append(g.members, m)
		}
		m.client = h.ClientID
		slices.SortStableFunc(g.members, func(a, b *member) int { return cmp.Compare(a.client, b.client) })
		g.consumeType, g.model, g.from = c.Type, c.Model, c.From
		g.subscribe(c.Subscriptions)
		before := m.subscriptions
		m.subscriptions = map[string]subscription{}
		for _, sub := range c.Subscriptions {
			m.subscriptions[sub.Topic] = sub
			if old, had := before[sub.Topic]; !had || old.Expression != sub.Expression {
				changed = true
			}
		}
		if changed {
			s.notifyMembers(g)
		}
	}
	if s.is4() {
		return r.respond()
	}
	return r.respond("IS_SUPPORT_HEART_BEAT_V2", "true", "IS_SUB_CHANGE", "true")
}

// subscribe changes the group's subscriptions to those of a heartbeat. Of two versions of one the newer stays.
func (g *group) subscribe(subscriptions []subscription) {
	before := g.subscribed
	g.subscribed = map[string]subscription{}
	for _, sub := range subscriptions {
		if old, had := before[sub.Topic]; had && old.Version >= sub.Version {
			sub = old
		}
		g.subscribed[sub.Topic] = sub
	}
}

// group returns the consumer group of a name, which it creates if it is new.
func (s *Server) group(name string) *group {
	g := s.groups[name]
	if g == nil {
		g = &group{name: name, offsets: map[*queue]int64{}, resets: map[*queue]int64{}, locks: map[queueName]lock{}}
		s.groups[name] = g
	}
	return g
}

// notifyMembers notifies a group's consumers that its members have changed (40), so that they rebalance.
func (s *Server) notifyMembers(g *group) {
	for _, m := range g.members {
		s.notify(m.session, &remoting.Command{Code: remoting.ConsumersChanged, Ext: map[string]string{"consumerGroup": g.name}})
	}
}

// unregisterClient removes the client of the connection from a group of consumers or producers (35).
func (s *Server) unregisterClient(r *request) *remoting.Command {
	if g := s.groups[r.Ext["consumerGroup"]]; g != nil {
		s.leave(g, r.from)
	}
	if name := r.Ext["producerGroup"]; name != "" {
		s.producers[name] = slices.DeleteFunc(s.producers[name], func(c *session) bool { return c == r.from })
	}
	return r.respond()
}

// memberOn returns the member on a connection, or nil.
func (g *group) memberOn(c *session) *member {
	if i := slices.IndexFunc(g.members, func(m *member) bool { return m.session == c }); i >= 0 {
		return g.members[i]
	}
	return nil
}

// leave removes the member on a connection from a group.
func (s *Server) leave(g *group, c *session) {
	if m := g.memberOn(c); m != nil {
		g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
		s.notifyMembers(g)
	}
}

// consumerList responds with the client ids of a group's members (38).
func (s *Server) consumerList(r *request) *remoting.Command {
	if refusal := r.requireFields("consumerGroup"); refusal != nil {
		return refusal
	}
	g := s.groups[r.Ext["consumerGroup"]]
	if g == nil || len(g.members) == 0 {
		return r.refuse(remoting.SystemError, "no consumer for this group, %s", r.Ext["consumerGroup"])
	}
	ids := make([]string, len(g.members))
	for i, m := range g.members {
		ids[i] = m.client
	}
	return r.respondJSON(map[string][]string{"consumerIdList": ids})
}

// forget removes the producers, members and waiting pulls of a connection that has ended.
func (s *Server) forget(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, sessions := range s.producers {
		if s.producers[name] = slices.DeleteFunc(sessions, func(other *session) bool { return other == c }); len(s.producers[name]) == 0 {
			delete(s.producers, name)
		}
	}
	defer s.changed()
	for _, name := range slices.Sorted(maps.Keys(s.groups)) {
		s.leave(s.groups[name], c)
	}
	s.dropPolls(c)
}

// notify sends a request to a client that has no response.
func (s *Server) notify(c *session, request *remoting.Command) {
	c.send(request.AsOneway())
}
