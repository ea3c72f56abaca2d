package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// beginTimeout bounds the placing of a new group in one topic.
const beginTimeout = 10 * time.Second

// begin gives a group that is new to a topic its place there, before the client asks for it: asked by the client, a broker
// names the beginning of any queue that is still in its memory. The client then begins with the oldest message wherever
// the group has no place, which is right for queues that come later.
//
// A group is new to a topic if it has no offset in the first queue of any broker. That queue's is set last, so that one who
// dies in between leaves the group new. Consumers that begin side by side set the same, or places that lie as close together
// as their starts.
func (k *consumer) begin(ctx context.Context) error {
	if k.begun || k.subscription.Begin.Oldest() {
		return nil
	}
	for _, topic := range k.subscription.Topics {
		one, cancel := context.WithTimeout(ctx, beginTimeout)
		err := k.beginTopic(one, topic)
		cancel()
		if err != nil {
			return printable.Errorf("begin topic %s at the %s: %w", topic, k.subscription.Begin, err)
		}
	}
	k.begun = true // not to be set again, should a broker lose offsets: what it has would be passed over
	return nil
}

func (k *consumer) beginTopic(ctx context.Context, topic string) error {
	queues, err := k.readable(ctx, topic)
	if err != nil {
		return err
	}
	for _, q := range queues {
		if q.link == nil {
			return printable.Errorf("%w: broker %s isn't connected", broker.ErrUnavailable, q.Broker)
		}
		switch known, err := k.offset(ctx, q.link, topic, 0); {
		case err != nil:
			return printable.Errorf("broker %s: %w", q.Broker, err)
		case known:
			return nil
		}
	}
	for _, q := range queues {
		for id := 1; id < q.Read; id++ {
			if err := k.place(ctx, q.link, topic, id); err != nil {
				return printable.Errorf("queue %d of broker %s: %w", id, q.Broker, err)
			}
		}
	}
	for _, q := range queues {
		if err := k.place(ctx, q.link, topic, 0); err != nil {
			return printable.Errorf("queue 0 of broker %s: %w", q.Broker, err)
		}
	}
	return nil
}

// readableQueues are the queues of a topic on one broker that can be read.
type readableQueues struct {
	remoting.QueueData
	link *link // nil: not connected yet
}

func (k *consumer) readable(ctx context.Context, topic string) ([]readableQueues, error) {
	route, err := k.client.names.route(ctx, topic)
	if err != nil {
		return nil, k.client.unlisted(err)
	}
	var queues []readableQueues
	for _, q := range route.Queues {
		if q.Perm&remoting.PermRead != 0 {
			queues = append(queues, readableQueues{q, k.client.link(q.Broker)})
		}
	}
	return queues, nil
}

func (k *consumer) at(topic string, queue int, more ...string) map[string]string {
	ext := map[string]string{"consumerGroup": k.subscription.Group, "topic": topic, "queueId": strconv.Itoa(queue)}
	for i := 0; i < len(more); i += 2 {
		ext[more[i]] = more[i+1]
	}
	return ext
}

// offset tells whether the group has an offset in a queue.
func (k *consumer) offset(ctx context.Context, l *link, topic string, queue int) (known bool, err error) {
	_, err = l.call(ctx, &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: k.at(topic, queue, "setZeroIfNotFound", "false")})
	var answer *remoting.ResponseError
	if errors.As(err, &answer) && answer.Code == remoting.QueryNotFound {
		return false, nil
	}
	return err == nil, err
}

// place sets the group's offset in a queue where it has none.
func (k *consumer) place(ctx context.Context, l *link, topic string, queue int) error {
	// A pull makes the broker create the group, without which it has no place for an offset, and tells the ends of the queue
	// whatever it finds. (To ask for them alone takes a grant that consumers don't have.)
	pulled, err := k.pullOne(ctx, l, topic, queue, 0)
	if err != nil {
		return err
	}
	offset := pulled.end
	if t, ok := k.subscription.Begin.Time(); ok {
		if offset, err = k.search(ctx, l, topic, queue, pulled, t); err != nil {
			return fmt.Errorf("search: %w", err)
		}
	}
	// Another consumer of the group may have placed it meanwhile, and read on.
	if known, err := k.offset(ctx, l, topic, queue); err != nil || known {
		return err
	}
	_, err = l.call(ctx, &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: k.at(topic, queue, "commitOffset", strconv.FormatInt(offset, 10))})
	return err
}

// search finds the first message of a queue that was stored at t or later. Brokers give the answer only to those who hold
// the grant Get of the topic. Others have to look at messages, for which Sub is enough.
func (k *consumer) search(ctx context.Context, l *link, topic string, queue int, p pulled, t time.Time) (int64, error) {
	answer, err := l.call(ctx, &remoting.Command{Code: remoting.SearchOffset, Ext: k.at(topic, queue, "timestamp", strconv.FormatInt(t.UnixMilli(), 10))})
	if err == nil {
		offset, err := strconv.ParseInt(answer.Ext["offset"], 10, 64)
		if err != nil {
			return 0, errNoOffset
		}
		return min(max(offset, 0), p.end), nil
	}
	if !errors.Is(err, broker.ErrUnauthorized) {
		return 0, err
	}
	low, high := p.begin, p.end
	for low < high {
		middle := low + (high-low)/2
		p, err := k.pullOne(ctx, l, topic, queue, middle)
		switch {
		case err != nil:
			return 0, err
		case p.stored.IsZero() && p.next > middle: // deleted meanwhile
			low = min(p.next, high)
		case p.stored.IsZero() || p.stored.UnixMilli() >= t.UnixMilli():
			high = middle
		default:
			low = middle + 1
		}
	}
	return low, nil
}

// pulled is what a pull of one message tells.
type pulled struct {
	begin, end int64 // of the queue
	next       int64 // offset to go on with
	stored     time.Time
}

// pullWithSubscription is the flag of a pull that brings its own subscription.
const pullWithSubscription = 1 << 2

var errNoOffset = errors.New("the broker's answer has no offset")

func (k *consumer) pullOne(ctx context.Context, l *link, topic string, queue int, offset int64) (p pulled, err error) {
	answer, err := l.call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: k.at(topic, queue,
		"queueOffset", strconv.FormatInt(offset, 10), "maxMsgNums", "1", "sysFlag", strconv.Itoa(pullWithSubscription), "commitOffset", "0",
		"suspendTimeoutMillis", "0", "subscription", "*", "subVersion", "0", "expressionType", "TAG")})
	if answer == nil {
		return p, err
	}
	for name, number := range map[string]*int64{"minOffset": &p.begin, "maxOffset": &p.end, "nextBeginOffset": &p.next} {
		var malformed error
		if *number, malformed = strconv.ParseInt(answer.Ext[name], 10, 64); malformed != nil {
			return p, cmp.Or(err, errNoOffset)
		}
	}
	if err == nil {
		records, err := remoting.DecodeRecords(answer.Body)
		if err != nil {
			return p, err
		}
		if len(records) > 0 {
			p.stored = records[0].Stored
		}
	}
	return p, nil
}
