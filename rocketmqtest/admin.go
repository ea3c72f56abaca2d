package rocketmqtest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// allTopics responds with the names of all topics (206).
func (s *Server) allTopics(r *request) *remoting.Command {
	return r.respondJSON(map[string]any{"topicList": slices.Sorted(maps.Keys(s.topics))})
}

// groupConfig is the configuration of a consumer group in a response. It can't be changed.
type groupConfig struct {
	Name        string `json:"groupName"`
	Enabled     bool   `json:"consumeEnable"`
	RetryQueues int    `json:"retryQueueNums"`
	RetryMax    int    `json:"retryMaxTimes"`
}

// allGroups responds with the configurations of all consumer groups (201).
func (s *Server) allGroups(r *request) *remoting.Command {
	groups := map[string]groupConfig{}
	for name := range s.groups {
		groups[name] = groupConfig{Name: name, Enabled: true, RetryQueues: 1, RetryMax: retryMax}
	}
	all := map[string]any{"subscriptionGroupTable": groups, "dataVersion": struct{}{}}
	if !s.is4() {
		all["forbiddenTable"] = struct{}{}
	}
	return r.respondJSON(all)
}

// messageByID responds with the message at a position of the commit log (33).
func (s *Server) messageByID(r *request) *remoting.Command {
	if refusal := r.requireNumbers("offset"); refusal != nil {
		return refusal
	}
	e := s.log.at(r.number("offset"))
	if e == nil {
		return r.refuse(remoting.SystemError, "can not find message by the offset, %d", r.number("offset"))
	}
	a := r.respond()
	a.Body = e.encoded
	return a
}

// queryMessage responds with the newest messages of a topic that have a key or a unique key, in the order of storage (12).
// The response also has the position of the key index, which here is always the end.
func (s *Server) queryMessage(r *request) *remoting.Command {
	if refusal := r.requireNumbers("maxNum", "beginTimestamp", "endTimestamp"); refusal != nil {
		return refusal
	}
	var found []*entry
	if t := s.topics[r.Ext["topic"]]; t != nil {
		for _, q := range t.queues {
			for _, e := range q.entries {
				if at := e.stored.UnixMilli(); at >= r.number("beginTimestamp") && at <= r.number("endTimestamp") && hasKey(e, r.Ext["key"]) {
					found = append(found, e)
				}
			}
		}
	}
	if len(found) == 0 {
		a := r.respond("indexLastUpdateTimestamp", "0", "indexLastUpdatePhyoffset", "0")
		a.Code, a.Remark = remoting.QueryNotFound, "can not find message, maybe time range not correct"
		return a
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.offset, b.offset) })
	last := s.log.entries[len(s.log.entries)-1]
	a := r.respond("indexLastUpdateTimestamp", strconv.FormatInt(last.stored.UnixMilli(), 10), "indexLastUpdatePhyoffset", strconv.FormatInt(last.offset, 10))
	for _, e := range found[int64(len(found))-max(0, min(r.number("maxNum"), int64(len(found)))):] {
		a.Body = append(a.Body, e.encoded...)
	}
	return a
}

// hasKey reports whether a message has a key or a unique key.
func hasKey(e *entry, key string) bool {
	p := e.record().Properties
	return p[propertyUniqueKey] == key || slices.Contains(strings.Fields(p[propertyKeys]), key)
}
