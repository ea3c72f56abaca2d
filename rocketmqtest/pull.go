package rocketmqtest

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Bits of the flag of a pull request.
const (
	pullCommits    = 1 << 0 // the request commits an offset of the group
	pullSuspends   = 1 << 1 // the request waits for a message
	pullSubscribes = 1 << 2 // the request has a subscription; else that of the group's heartbeats is used
)

const maxPullBytes = 256 << 10 // maximum size of a response, unless one message is larger

// poll is a pull request that waits for a message (long polling).
type poll struct {
	request *request
	queue   *queue
	filter  filter
	timer   *time.Timer
}

// pullMessage responds with messages, or waits for one (11).
func (s *Server) pullMessage(r *request) *remoting.Command {
	if refusal := cmp.Or(r.requireFields("consumerGroup", "topic"), r.requireNumbers("queueId", "queueOffset", "maxMsgNums", "sysFlag"),
		r.optionalNumbers("commitOffset", "suspendTimeoutMillis", "subVersion")); refusal != nil {
		return refusal
	}
	g := s.group(r.Ext["consumerGroup"])
	t := s.topics[r.Ext["topic"]]
	if t == nil {
		return r.refuse(remoting.TopicNotExist, "topic[%s] not exist, apply first please! "+seeFAQ, r.Ext["topic"])
	}
	if t.perm&remoting.PermRead == 0 {
		a := r.refuse(remoting.NoPermission, "the topic[%s] pulling message is forbidden", t.name)
		if !s.is4() {
			a.Ext = map[string]string{"forbiddenType": "3"}
		}
		return a
	}
	id := r.number("queueId")
	if id < 0 || id >= int64(t.read) {
		return r.refuse(s.invalid(), "queueId[%d] is illegal, topic:[%s] topicConfig.readQueueNums:[%d] consumer:[/%v]", id, t.name, t.read, r.from.remote)
	}
	q := t.queues[id]
	f, refusal := s.filterOf(r, g, t)
	if refusal != nil {
		return refusal
	}
	flag := r.number("sysFlag")
	if flag&pullCommits != 0 {
		g.offsets[q] = r.number("commitOffset")
	}
	if answer := s.pull(r, q, f); answer.Code != remoting.PullNotFound || flag&pullSuspends == 0 {
		return answer
	}
	p := &poll{request: r, queue: q, filter: f}
	q.polls[p] = struct{}{}
	// Clients measure the time of a poll in real time.
	p.timer = time.AfterFunc(time.Duration(r.number("suspendTimeoutMillis"))*time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endPoll(p)
	})
	return nil
}

// filterOf returns the filter of a pull: that of the request, or that of the group's heartbeats.
func (s *Server) filterOf(r *request, g *group, t *topic) (filter, *remoting.Command) {
	if r.number("sysFlag")&pullSubscribes != 0 {
		return newFilter(r, r.Ext["subscription"], r.Ext["expressionType"])
	}
	if len(g.members) == 0 {
		return nil, r.refuse(remoting.SubscriptionUnknown, "the consumer's group info not exist")
	}
	var found *subscription
	for _, m := range g.members {
		if sub, subscribed := m.subscriptions[t.name]; subscribed && (found == nil || sub.Version > found.Version) {
			found = &sub
		}
	}
	switch {
	case found == nil:
		return nil, r.refuse(remoting.SubscriptionUnknown, "the consumer's subscription not exist")
	case found.Version < r.number("subVersion"):
		return nil, r.refuse(remoting.SubscriptionOld, "the consumer's subscription not latest")
	}
	return newFilter(r, found.Expression, found.Type)
}

// pull returns the response to a pull: messages from the requested offset on, or the reason why there are none.
func (s *Server) pull(r *request, q *queue, f filter) *remoting.Command {
	offset, most := r.number("queueOffset"), max(1, r.number("maxMsgNums"))
	next, code, remark := offset, remoting.Success, "FOUND"
	var body []byte
	resets := s.group(r.Ext["consumerGroup"]).resets
	reset, isReset := resets[q]
	delete(resets, q)
	switch end := q.end(); {
	case isReset:
		next, code, remark = reset, remoting.PullOffsetMoved, "OFFSET_RESET"
	case end == 0:
		next, code, remark = 0, remoting.PullNotFound, "NO_MESSAGE_IN_QUEUE"
		if offset != 0 {
			code = remoting.PullOffsetMoved
		}
	case offset < q.first:
		next, code, remark = q.first, remoting.PullOffsetMoved, "OFFSET_TOO_SMALL"
	case offset == end:
		code, remark = remoting.PullNotFound, "OFFSET_OVERFLOW_ONE"
	case offset > end:
		next, code, remark = end, remoting.PullOffsetMoved, "OFFSET_OVERFLOW_BADLY"
	default:
		for n := int64(0); n < most && next < end; next++ {
			e := q.at(next)
			if !f.match(e.tag) {
				continue
			}
			if n > 0 && len(body)+len(e.encoded) > maxPullBytes {
				break
			}
			body = append(body, e.encoded...)
			n++
		}
		if body == nil {
			code, remark = remoting.PullRetryNow, "NO_MATCHED_MESSAGE"
		}
	}
	a := r.respond(
		"nextBeginOffset", strconv.FormatInt(next, 10),
		"minOffset", strconv.FormatInt(q.first, 10),
		"maxOffset", strconv.FormatInt(q.end(), 10),
		"suggestWhichBrokerId", "0",
	)
	if !s.is4() {
		a.Ext["topicSysFlag"], a.Ext["groupSysFlag"] = "0", "0"
	}
	a.Code, a.Remark, a.Body = code, remark, body
	return a
}

// arrived responds to the pulls whose filters match a new message.
func (s *Server) arrived(q *queue, e *entry) {
	for p := range q.polls {
		if p.filter.match(e.tag) {
			s.endPoll(p)
		}
	}
}

// endPoll responds to a waiting pull, unless that was done already.
func (s *Server) endPoll(p *poll) {
	if _, waits := p.queue.polls[p]; !waits {
		return
	}
	delete(p.queue.polls, p)
	p.timer.Stop()
	p.request.reply(s.pull(p.request, p.queue, p.filter))
}

// dropPolls removes the waiting pulls of a connection that has ended.
func (s *Server) dropPolls(c *session) {
	for _, t := range s.topics {
		for _, q := range t.queues {
			for p := range q.polls {
				if p.request.from == c {
					delete(q.polls, p)
					p.timer.Stop()
				}
			}
		}
	}
}

// filter is the set of tags that a consumer subscribes to; nil stands for all.
type filter map[string]struct{}

// newFilter parses the expression of a subscription.
func newFilter(r *request, expression, kind string) (filter, *remoting.Command) {
	if kind != "" && kind != "TAG" {
		return nil, r.refuse(remoting.SystemError, "The broker does not support consumer to filter message by %s", kind)
	}
	if expression == "" || expression == "*" {
		return nil, nil
	}
	f := filter{}
	for tag := range strings.SplitSeq(expression, "||") {
		if tag = strings.TrimSpace(tag); tag != "" {
			f[tag] = struct{}{}
		}
	}
	if strings.ReplaceAll(expression, "||", "") == "" {
		return nil, r.refuse(remoting.SubscriptionIllegal, "parse the consumer's subscription failed")
	}
	return f, nil
}

// match reports whether the filter has a tag.
func (f filter) match(tag string) bool {
	if f == nil {
		return true
	}
	_, wanted := f[tag]
	return wanted
}
