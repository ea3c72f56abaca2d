package rocketmqtest

import (
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// Bits of a pull's flag.
const (
	pullCommits  = 1 << 0 // it brings the group's offset
	pullSuspends = 1 << 1 // it waits for a message
)

const maxPullBytes = 256 << 10 // of an answer, unless one message is larger

// poll is a pull that waits for a message.
type poll struct {
	request *request
	queue   *queue
	filter  filter
	timer   *time.Timer
}

// pullMessage hands out messages (11), or waits for one.
func (s *Server) pullMessage(r *request) *remoting.Command {
	q, refusal := s.queueOf(r)
	if refusal != nil {
		return refusal
	}
	if refusal := r.need("queueOffset", "maxMsgNums", "sysFlag"); refusal != nil {
		return refusal
	}
	if q.topic.perm&remoting.PermRead == 0 {
		return r.refuse(remoting.NoPermission, "the topic[%s] pulling message is forbidden", q.topic.name)
	}
	flag := r.number("sysFlag")
	if flag&pullCommits != 0 {
		s.group(r.Ext["consumerGroup"]).offsets[q] = r.number("commitOffset")
	}
	f := newFilter(r.Ext["subscription"])
	if answer := s.pull(r, q, f); answer.Code != remoting.PullNotFound || flag&pullSuspends == 0 {
		return answer
	}
	p := &poll{request: r, queue: q, filter: f}
	q.polls[p] = struct{}{}
	// Whoever waits counts the machine's time.
	p.timer = time.AfterFunc(time.Duration(r.number("suspendTimeoutMillis"))*time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endPoll(p)
	})
	return nil
}

// pull looks for messages from the offset on that the request names.
func (s *Server) pull(r *request, q *queue, f filter) *remoting.Command {
	offset, most := r.number("queueOffset"), r.number("maxMsgNums")
	next, code := offset, remoting.Success
	var body []byte
	switch end := q.end(); {
	case end == 0 && offset == 0, offset == end && end > 0:
		code = remoting.PullNotFound
	case end == 0:
		next, code = 0, remoting.PullOffsetMoved
	case offset < q.first:
		next, code = q.first, remoting.PullOffsetMoved
	case offset > end:
		next, code = end, remoting.PullOffsetMoved
	default:
		code = remoting.PullRetryNow
		for n := int64(0); n < most && next < end; next++ {
			e := q.at(next)
			if !f.match(e.tag) {
				continue
			}
			if n > 0 && len(body)+len(e.encoded) > maxPullBytes {
				break
			}
			body = append(body, e.encoded...)
			code = remoting.Success
			n++
		}
	}
	a := r.answer(
		"nextBeginOffset", strconv.FormatInt(next, 10),
		"minOffset", strconv.FormatInt(q.first, 10),
		"maxOffset", strconv.FormatInt(q.end(), 10),
		"suggestWhichBrokerId", "0",
	)
	a.Code, a.Body = code, body
	return a
}

// arrived answers the pulls that wait for a message like e.
func (s *Server) arrived(q *queue, e *entry) {
	for p := range q.polls {
		if p.filter.match(e.tag) {
			s.endPoll(p)
		}
	}
}

// endPoll answers a pull that waits, if it still does.
func (s *Server) endPoll(p *poll) {
	if _, waits := p.queue.polls[p]; !waits {
		return
	}
	delete(p.queue.polls, p)
	p.timer.Stop()
	p.request.from.send(s.pull(p.request, p.queue, p.filter))
}

// dropPolls forgets the pulls of a connection that has ended.
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

// filter is the set of tags that a consumer wants; nil: all.
type filter map[string]struct{}

func newFilter(expression string) filter {
	if expression = strings.TrimSpace(expression); expression == "" || expression == "*" {
		return nil
	}
	f := filter{}
	for tag := range strings.SplitSeq(expression, "||") {
		if tag = strings.TrimSpace(tag); tag != "" {
			f[tag] = struct{}{}
		}
	}
	return f
}

func (f filter) match(tag string) bool {
	if f == nil {
		return true
	}
	_, wanted := f[tag]
	return wanted
}
