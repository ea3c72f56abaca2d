package rocketmqtest

import (
	"sort"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// queueOf finds the queue that a request names, or refuses.
func (s *Server) queueOf(r *request) (*queue, *remoting.Command) {
	t := s.topics[r.Ext["topic"]]
	if t == nil {
		return nil, r.refuse(remoting.TopicNotExist, "topic[%s] not exist, apply first please!", r.Ext["topic"])
	}
	if refusal := r.need("queueId"); refusal != nil {
		return nil, refusal
	}
	if id := r.number("queueId"); id >= 0 && id < int64(len(t.queues)) {
		return t.queues[id], nil
	}
	return nil, r.refuse(remoting.SystemError, "queueId[%s] is illegal, topic:[%s] topicConfig.readQueueNums:[%d]", r.Ext["queueId"], t.name, t.read)
}

// queryOffset says how far a group has come in a queue (14).
func (s *Server) queryOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	if g := s.groups[r.Ext["consumerGroup"]]; g != nil {
		if offset, known := g.offsets[q]; known {
			return r.answerOffset(offset)
		}
	}
	// A group that is new to a queue which still has its first message is told to begin there.
	if q.first <= 0 && r.Ext["setZeroIfNotFound"] != "false" {
		return r.answerOffset(0)
	}
	return r.refuse(remoting.QueryNotFound, "Not found, maybe this group consumer boot first")
}

// updateOffset writes down how far a group has come (15).
func (s *Server) updateOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	if refusal := r.need("commitOffset"); refusal != nil {
		return refusal
	}
	g := s.groups[r.Ext["consumerGroup"]]
	if g == nil {
		return r.refuse(remoting.GroupUnknown, "group %s not exist", r.Ext["consumerGroup"])
	}
	g.offsets[q] = r.number("commitOffset")
	return r.answer()
}

// maxOffset is the offset that a queue's next message gets (30).
func (s *Server) maxOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	return r.answerOffset(q.end())
}

// minOffset is the offset of a queue's oldest message (31).
func (s *Server) minOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	return r.answerOffset(q.first)
}

// searchOffset finds the first message that was stored at an instant or later (29).
func (s *Server) searchOffset(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	at := time.UnixMilli(r.number("timestamp"))
	i := sort.Search(len(q.entries), func(i int) bool { return !q.entries[i].stored.Before(at) })
	return r.answerOffset(q.first + int64(i))
}

func (r *request) answerOffset(offset int64) *remoting.Command {
	return r.answer("offset", strconv.FormatInt(offset, 10))
}
