package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

func brokerHalfMessages(ctx context.Context, m *cluster) []Result {
	oldest := m.x.config.Expect.MaxTransaction
	return m.each(func(b *master) []Result {
		halves, complete, err := b.halves(ctx)
		if err != nil {
			return one(unknown("half messages can't be read: %s", reason(err)))
		}
		hung := map[string]*hungHalf{} // by key: a check-back stores a half message again
		for _, h := range halves {
			checks, _ := strconv.Atoi(h.Properties["TRANSACTION_CHECK_TIMES"])
			age := time.Since(h.Born) + b.lag
			if checks < 2 || age <= oldest {
				continue
			}
			key := h.Properties["UNIQ_KEY"]
			if hung[key] == nil {
				hung[key] = &hungHalf{group: h.Properties["PGROUP"], topic: h.Properties["REAL_TOPIC"]}
			}
			hung[key].checks, hung[key].age = max(hung[key].checks, checks), max(hung[key].age, age)
		}
		switch {
		case len(hung) > 0:
			example := slices.MaxFunc(slices.Collect(maps.Values(hung)), func(a, b *hungHalf) int { return int(a.age - b.age) })
			return one(found(fmt.Sprintf("%s without a decision; the oldest for %s, of producer group %s, to topic %s, checked back %d times",
				quantity(int64(len(hung)), "half message"), about(example.age), example.group, example.topic, example.checks),
				fmt.Sprintf("a decision within %s", about(oldest)), "# start a process of producer group "+safe(example.group)+", or see in its log why it can't decide"))
		case !complete:
			return one(unknown("there are too many half messages to read, and none of the first %d hangs", len(halves)))
		}
		return one(ok("%s open or lately ended, none hangs", quantity(int64(len(halves)), "half message")))
	})
}

type hungHalf struct {
	group, topic string
	checks       int
	age          time.Duration
}

// halves reads the half messages that the broker has not passed yet, some of which have ended. complete is false if there are more.
func (b *master) halves(ctx context.Context) (list []*remoting.Record, complete bool, err error) {
	const pulls = 16
	queue := map[string]string{"topic": remoting.HalfTopic, "queueId": "0"}
	next, err := b.offset(ctx, remoting.MinOffset, queue)
	if err != nil {
		return nil, false, err
	}
	end, err := b.offset(ctx, remoting.MaxOffset, queue)
	if err != nil {
		return nil, false, err
	}
	passed, err := b.offset(ctx, remoting.QueryConsumerOffset, map[string]string{"topic": remoting.HalfTopic, "queueId": "0", "consumerGroup": remoting.CheckGroup, "setZeroIfNotFound": "false"})
	switch {
	case err == nil:
		next = max(next, passed)
	case refusedWith(err, remoting.QueryNotFound): // nothing was checked yet
	default:
		return nil, false, err
	}
	for range pulls {
		if next >= end {
			return list, true, nil
		}
		response, err := b.call(ctx, remoting.PullMessage, map[string]string{
			"consumerGroup": remoting.ToolsGroup, "topic": remoting.HalfTopic, "queueId": "0", "queueOffset": strconv.FormatInt(next, 10), "maxMsgNums": "32",
			"sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		})
		switch {
		case refusedWith(err, remoting.PullNotFound), refusedWith(err, remoting.PullOffsetMoved), refusedWith(err, remoting.PullRetryNow):
			return list, true, nil
		case err != nil:
			return nil, false, err
		}
		records, err := remoting.DecodeRecords(response.Body)
		if err != nil {
			return nil, false, err
		}
		if len(records) == 0 {
			return list, true, nil
		}
		list = append(list, records...)
		next = records[len(records)-1].QueueOffset + 1
	}
	return list, next >= end, nil
}

// refusedWith reports whether an error is a response with a code.
func refusedWith(err error, code remoting.Code) bool {
	var refused *remoting.ResponseError
	return errors.As(err, &refused) && refused.Code == code
}

func brokerDiscarded(ctx context.Context, m *cluster) []Result {
	route, err := m.route(ctx, remoting.DiscardTopic)
	switch {
	case errors.Is(err, broker.ErrTopicNotFound):
		return one(ok("no half message was ever discarded"))
	case err != nil:
		return one(unknown("%s", reason(err)))
	}
	return m.each(func(b *master) []Result {
		n, err := b.messages(ctx, remoting.DiscardTopic, route)
		switch {
		case err != nil:
			return one(unknown("%s", reason(err)))
		case n == 0:
			return one(ok("no half message was discarded"))
		}
		return one(found(quantity(n, "half message")+" discarded without a decision", "none",
			fmt.Sprintf("# look at them, and for who should have answered (see outbox-producer):\nmqadmin printMsg -n %s -t %s -d true", m.namesrv(), remoting.DiscardTopic)))
	})
}

// messages returns the number of messages that the broker keeps of a topic with a route.
func (b *master) messages(ctx context.Context, topic string, route remoting.Route) (n int64, err error) {
	for _, q := range route.Queues {
		if q.Broker != b.name {
			continue
		}
		for id := range min(max(q.Read, q.Write), maxList) {
			queue := map[string]string{"topic": topic, "queueId": strconv.Itoa(id)}
			first, err := b.offset(ctx, remoting.MinOffset, queue)
			if err != nil {
				return n, err
			}
			end, err := b.offset(ctx, remoting.MaxOffset, queue)
			if err != nil {
				return n, err
			}
			n += end - first
		}
	}
	return n, nil
}

func brokerDeadLetters(ctx context.Context, s *schema, m *cluster) (results []Result) {
	for _, c := range s.consumers {
		topic := remoting.DeadPrefix + m.wire(c.group)
		route, err := m.route(ctx, topic)
		if errors.Is(err, broker.ErrTopicNotFound) {
			continue
		}
		if err != nil {
			results = append(results, unknown("%s: %s", topic, reason(err)))
			continue
		}
		results = append(results, m.each(func(b *master) []Result {
			n, err := b.messages(ctx, topic, route)
			switch {
			case err != nil:
				return one(unknown("%s: %s", topic, reason(err)))
			case n == 0:
				return nil
			}
			return one(found(fmt.Sprintf("%s in %s", quantity(n, "message"), topic), "none: rocketflow parks what can't be handled in Postgres",
				fmt.Sprintf("mqadmin printMsg -n %s -t %s -d true\nmqadmin consumerConnection -n %[1]s -g %[3]s", m.namesrv(), shell(topic), shell(m.wire(c.group)))))
		})...)
	}
	if len(results) == 0 {
		return one(ok("no message in a dead-letter topic of %s", quantity(int64(len(s.consumers)), "consumer")))
	}
	return results
}
