package rocketmqtest

import (
	"cmp"
	"sort"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queueOf finds the queue that a request names: nil if there is none.
func (s *Server) queueOf(r *request) (*queue, *remoting.Command) {
	if refusal := cmp.Or(r.requireFields("topic"), r.requireNumbers("queueId")); refusal != nil {
		return nil, refusal
	}
	if t, id := s.topics[r.Ext["topic"]], r.number("queueId"); t != nil && id >= 0 && id < int64(len(t.queues)) {
		return t.queues[id], nil
	}
	return nil, nil
}

// queryOffset responds with the committed offset of a group in a queue (14).
func (s *Server) queryOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	if g := s.groups[r.Ext["consumerGroup"]]; g != nil && q != nil {
		// Some clients commit -1 for queues that they have not read.
		if offset, known := g.offsets[q]; known && offset >= 0 {
			return r.respondOffset(offset)
		}
	}
	// A group without an offset starts at 0 if the queue still has its first message.
	switch {
	case s.is4() && (q == nil || q.first == 0):
		return r.respondOffset(0)
	case r.Ext["setZeroIfNotFound"] == "false" && !s.is4():
		return r.refuse(remoting.QueryNotFound, "Not found, do not set to zero, maybe this group boot first")
	case q != nil && q.first == 0 && q.end() > 0:
		return r.respondOffset(0)
	}
	return r.refuse(remoting.QueryNotFound, "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")
}

// updateOffset commits an offset of a group (15). One for a queue that doesn't exist is accepted and lost.
func (s *Server) updateOffset(r *request) *remoting.Command {
	if s.is4() { // checks nothing
		if refusal := r.requireNumbers("queueId", "commitOffset"); refusal != nil {
			return refusal
		}
		if q, _ := s.queueOf(r); q != nil {
			s.group(r.Ext["consumerGroup"]).offsets[q] = r.number("commitOffset")
		}
		return r.respond()
	}
	if refusal := r.requireFields("topic"); refusal != nil {
		return refusal
	}
	name := r.Ext["topic"]
	g := s.groups[r.Ext["consumerGroup"]]
	switch {
	case s.topics[name] == nil:
		return r.refuse(remoting.TopicNotExist, "Topic %s not exist!", name)
	case g == nil:
		return r.refuse(remoting.GroupUnknown, "Group %s not exist!", r.orNull("consumerGroup"))
	case r.requireNumbers("queueId") != nil:
		return r.refuse(remoting.InvalidParameter, "QueueId is null, topic is %s", name)
	case r.requireNumbers("commitOffset") != nil:
		return r.refuse(remoting.InvalidParameter, "Offset is null, topic is %s", name)
	}
	if q, _ := s.queueOf(r); q != nil {
		if _, reset := g.resets[q]; reset {
			a := r.respond()
			a.Remark = "Offset has been previously reset"
			return a
		}
		g.offsets[q] = r.number("commitOffset")
	}
	return r.respond()
}

// resetGroup sets a group's offsets in a topic to the first messages that were stored at an instant or later, or in one queue to a given
// offset (222). The next pull of a queue in the name of the group, whoever sends it, gets the new offset as response, once; until then the
// group can't commit another one. RocketMQ 4, which tells the members instead, isn't imitated.
func (s *Server) resetGroup(r *request) *remoting.Command {
	if s.is4() {
		return r.refuse(remoting.NotSupported, "only RocketMQ 5 resets offsets without the members")
	}
	if refusal := cmp.Or(r.requireFields("topic", "group"), r.requireNumbers("timestamp"), r.optionalNumbers("queueId", "offset")); refusal != nil {
		return refusal
	}
	t, g := s.topics[r.Ext["topic"]], s.groups[r.Ext["group"]]
	switch {
	case t == nil:
		return r.refuse(remoting.TopicNotExist, "Topic %s does not exist", r.Ext["topic"])
	case g == nil:
		return r.refuse(remoting.GroupUnknown, "Group %s does not exist", r.Ext["group"])
	}
	only, given := int64(-1), int64(-1)
	if r.Ext["queueId"] != "" {
		only = r.number("queueId")
	}
	if r.Ext["offset"] != "" {
		given = r.number("offset")
	}
	at := time.UnixMilli(r.number("timestamp"))
	for _, q := range t.queues {
		switch {
		case only < 0:
			g.resets[q] = q.search(at)
		case only == int64(q.id) && given >= 0:
			if given < q.first || given > q.end()+1 {
				return r.refuse(remoting.SystemError, "Target offset %d not in consume queue range [%d-%d]", given, q.first, q.end())
			}
			g.resets[q] = given
		case only == int64(q.id):
			g.resets[q] = q.search(at)
		default:
			continue
		}
		g.offsets[q] = g.resets[q]
	}
	return r.respond()
}

// search returns the offset of the first message that was stored at an instant or later.
func (q *queue) search(at time.Time) int64 {
	return q.first + int64(sort.Search(len(q.entries), func(i int) bool { return !q.entries[i].stored.Before(at) }))
}

// allConsumerOffsets responds with the committed offsets of all groups (43), by topic@group and by queue.
func (s *Server) allConsumerOffsets(r *request) *remoting.Command {
	all := map[string]map[int]int64{}
	for name, g := range s.groups {
		for q, offset := range g.offsets {
			of := q.topic.name + "@" + name
			if all[of] == nil {
				all[of] = map[int]int64{}
			}
			all[of][q.id] = offset
		}
	}
	return r.respondJSON(map[string]any{"offsetTable": all})
}

// maxOffset responds with the offset of a queue's next message (30).
func (s *Server) maxOffset(r *request) *remoting.Command {
	return s.offsetIn(r, (*queue).end)
}

// minOffset responds with the offset of a queue's oldest message (31).
func (s *Server) minOffset(r *request) *remoting.Command {
	return s.offsetIn(r, func(q *queue) int64 { return q.first })
}

// searchOffset responds with the offset of the first message that was stored at an instant or later (29).
func (s *Server) searchOffset(r *request) *remoting.Command {
	if refusal := r.requireNumbers("timestamp"); refusal != nil {
		return refusal
	}
	at := time.UnixMilli(r.number("timestamp"))
	return s.offsetIn(r, func(q *queue) int64 {
		i := int(q.search(at) - q.first)
		if s.is4() && i > 0 && (i == len(q.entries) || at.Sub(q.entries[i-1].stored) <= q.entries[i].stored.Sub(at)) {
			i-- // the nearest, which may be older
		}
		return q.first + int64(i)
	})
}

// offsetIn responds with an offset of the queue that a request names, or 0 if there is no such queue.
func (s *Server) offsetIn(r *request, find func(*queue) int64) *remoting.Command {
	q, refusal := s.queueOf(r)
	switch {
	case refusal != nil:
		return refusal
	case q == nil:
		return r.respondOffset(0)
	}
	return r.respondOffset(find(q))
}

func (r *request) respondOffset(offset int64) *remoting.Command {
	return r.respond("offset", strconv.FormatInt(offset, 10))
}

// orNull returns a field as a broker in Java prints it: "null" if it is missing.
func (r *request) orNull(name string) string {
	if value, set := r.Ext[name]; set {
		return value
	}
	return "null"
}
