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

// setStartTimeout bounds setting the first offsets of a group in one topic.
const setStartTimeout = 10 * time.Second

// setStart implements Subscription.Begin: it sets the offsets of a group that is new to a topic before rocketmq-client-go
// requests them. (A broker responds to a group without an offset with the first message of any queue that is still in its memory.
// The client then begins with the oldest message wherever the group has no offset, which is right for queues that are added later.)
//
// A group is new to a topic if it has no offset in queue 0 of any broker. The offset of queue 0 is set last, so that the group is
// still new if the process dies in between. Consumers that start at the same time set equal offsets, or offsets as close together
// as their starts.
func (k *consumer) setStart(ctx context.Context) error {
	if k.startSet || k.subscription.Begin.Oldest() {
		return nil
	}
	for _, topic := range k.subscription.Topics {
		setting, cancel := context.WithTimeout(ctx, setStartTimeout)
		err := k.setStartOfTopic(setting, topic)
		cancel()
		if err != nil {
			return printable.Errorf("begin topic %s at %s: %w", topic, k.subscription.Begin, err)
		}
	}
	k.startSet = true // never set again: if a broker lost the offsets, messages that it still has would be skipped
	return nil
}

func (k *consumer) setStartOfTopic(ctx context.Context, topic string) error {
	queues, err := k.readableQueues(ctx, topic)
	if err != nil {
		return err
	}
	for _, q := range queues {
		if q.conn == nil {
			return printable.Errorf("%w: broker %s isn't connected", broker.ErrUnavailable, q.Broker)
		}
		switch has, err := k.hasOffset(ctx, q.conn, topic, 0); {
		case err != nil:
			return printable.Errorf("broker %s: %w", q.Broker, err)
		case has:
			return nil
		}
	}
	for _, q := range queues {
		for id := 1; id < q.Read; id++ {
			if err := k.setFirstOffset(ctx, q.conn, topic, id); err != nil {
				return printable.Errorf("queue %d of broker %s: %w", id, q.Broker, err)
			}
		}
	}
	for _, q := range queues {
		if err := k.setFirstOffset(ctx, q.conn, topic, 0); err != nil {
			return printable.Errorf("queue 0 of broker %s: %w", q.Broker, err)
		}
	}
	return nil
}

// readableQueues are the queues of a topic on one broker that consumers may read.
type readableQueues struct {
	remoting.QueueData
	conn *brokerConn // nil: not connected yet
}

// readableQueues returns the queues of a topic by broker.
func (k *consumer) readableQueues(ctx context.Context, topic string) ([]readableQueues, error) {
	route, err := k.client.nameServers.route(ctx, topic)
	if err != nil {
		return nil, k.client.explainNotFound(topic, err)
	}
	var queues []readableQueues
	for _, q := range route.Queues {
		if q.Perm&remoting.PermRead != 0 {
			queues = append(queues, readableQueues{q, k.client.brokerConn(q.Broker)})
		}
	}
	return queues, nil
}

// queueFields returns the header fields that name the group and a queue of a broker, and the pairs of more.
func (k *consumer) queueFields(topic string, queue int, more ...string) map[string]string {
	ext := map[string]string{"consumerGroup": k.subscription.Group, "topic": topic, "queueId": strconv.Itoa(queue)}
	for i := 0; i < len(more); i += 2 {
		ext[more[i]] = more[i+1]
	}
	return ext
}

// offset returns the group's offset in a queue, as the broker tells it; -1: the broker has none. RocketMQ 4 tells 0 then: see listsOffset.
func (k *consumer) offset(ctx context.Context, b *brokerConn, topic string, queue int) (int64, error) {
	response, err := b.call(ctx, &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: k.queueFields(topic, queue, "setZeroIfNotFound", "false")})
	var refused *remoting.ResponseError
	switch {
	case errors.As(err, &refused) && refused.Code == remoting.QueryNotFound:
		return -1, nil
	case err != nil:
		return 0, err
	}
	offset, err := strconv.ParseInt(response.Ext["offset"], 10, 64)
	if err != nil {
		return 0, errNoOffset
	}
	return offset, nil
}

// hasOffset reports whether the broker has an offset of the group in a queue.
func (k *consumer) hasOffset(ctx context.Context, b *brokerConn, topic string, queue int) (bool, error) {
	offset, err := k.offset(ctx, b, topic, queue)
	if err == nil && offset == 0 && is4(b.brokerVersion()) {
		return k.listsOffset(ctx, b, topic, queue)
	}
	return err == nil && offset >= 0, err
}

// listsOffset reports whether the broker lists an offset of the group in a queue. RocketMQ 4 doesn't know setZeroIfNotFound and responds
// with 0 also to a group without an offset, so only the list of the offsets of all groups, which its slaves copy, shows the difference.
func (k *consumer) listsOffset(ctx context.Context, b *brokerConn, topic string, queue int) (bool, error) {
	response, err := b.call(ctx, &remoting.Command{Code: remoting.AllConsumerOffsets})
	if err != nil {
		return false, fmt.Errorf("list the offsets of all groups, without which RocketMQ 4 doesn't show whether the group is new: %w", err)
	}
	var all struct {
		Offsets map[string]map[string]int64 `json:"offsetTable"` // by topic@group and by queue
	}
	if err := remoting.DecodeJSON(response.Body, &all); err != nil {
		return false, fmt.Errorf("offsets of all groups: %w", err)
	}
	_, listed := all.Offsets[topic+"@"+k.subscription.Group][strconv.Itoa(queue)]
	return listed, nil
}

// setFirstOffset sets the group's offset in a queue where it has none.
func (k *consumer) setFirstOffset(ctx context.Context, b *brokerConn, topic string, queue int) error {
	// A pull makes the broker create the group, without which it takes no offset. The response has the bounds of the queue. (The
	// requests for the bounds alone need a grant that consumers don't have.)
	bounds, err := k.pullOne(ctx, b, topic, queue, 0)
	if err != nil {
		return err
	}
	offset := bounds.end
	if t, ok := k.subscription.Begin.Time(); ok {
		if offset, err = k.searchOffset(ctx, b, topic, queue, bounds, t); err != nil {
			return fmt.Errorf("search: %w", err)
		}
	}
	// Another consumer of the group may have set an offset meanwhile, and gone on from there.
	if has, err := k.hasOffset(ctx, b, topic, queue); err != nil || has {
		return err
	}
	_, err = b.call(ctx, &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: k.queueFields(topic, queue, "commitOffset", strconv.FormatInt(offset, 10))})
	return err
}

// searchOffset returns the offset of the first message of a queue that was stored at t or later. A broker searches only for users
// that have the grant Get on the topic, and one of version 4 finds the message nearest to t, which may be too old. Then it is a binary
// search with pulls, for which the grant Sub is enough.
func (k *consumer) searchOffset(ctx context.Context, b *brokerConn, topic string, queue int, bounds pullResult, t time.Time) (int64, error) {
	if is4(b.brokerVersion()) {
		return k.searchByPulls(ctx, b, topic, queue, bounds, t)
	}
	response, err := b.call(ctx, &remoting.Command{Code: remoting.SearchOffset, Ext: k.queueFields(topic, queue, "timestamp", strconv.FormatInt(t.UnixMilli(), 10))})
	if err == nil {
		offset, err := strconv.ParseInt(response.Ext["offset"], 10, 64)
		if err != nil {
			return 0, errNoOffset
		}
		return min(max(offset, 0), bounds.end), nil
	}
	if !errors.Is(err, broker.ErrUnauthorized) {
		return 0, err
	}
	return k.searchByPulls(ctx, b, topic, queue, bounds, t)
}

func (k *consumer) searchByPulls(ctx context.Context, b *brokerConn, topic string, queue int, bounds pullResult, t time.Time) (int64, error) {
	low, high := bounds.begin, bounds.end
	for low < high {
		middle := low + (high-low)/2
		p, err := k.pullOne(ctx, b, topic, queue, middle)
		switch {
		case err != nil:
			return 0, err
		case p.record == nil && p.next > middle: // deleted meanwhile
			low = min(p.next, high)
		case p.record == nil || p.record.Stored.UnixMilli() >= t.UnixMilli():
			high = middle
		default:
			low = middle + 1
		}
	}
	return low, nil
}

// pullResult is what the response to a pull of one message says.
type pullResult struct {
	begin, end int64            // bounds of the queue
	next       int64            // offset of the next pull
	record     *remoting.Record // nil: there is none
}

// stored returns when the message was stored; zero: there is none.
func (p pullResult) stored() time.Time {
	if p.record == nil {
		return time.Time{}
	}
	return p.record.Stored
}

// pullWithSubscription is the system flag of a pull that has its own subscription.
const pullWithSubscription = 1 << 2

var errNoOffset = errors.New("the broker's response has no offset")

// pullAsTool is pullOne for callers that don't consume. A broker of RocketMQ 5 tells that the offset of a group was reset only once, to the
// next pull in the name of the group, whoever sends it. So this pull has another name, unless the broker refuses that: a user may lack the
// grant.
func (k *consumer) pullAsTool(ctx context.Context, b *brokerConn, topic string, queue int, offset int64) (pullResult, error) {
	if !b.refusesTools.Load() {
		tools := &consumer{client: k.client, subscription: broker.Subscription{Group: remoting.ToolsGroup}}
		p, err := tools.pullOne(ctx, b, topic, queue, offset)
		var refused *remoting.ResponseError
		if !errors.As(err, &refused) {
			return p, err
		}
		b.refusesTools.Store(refused.Code == remoting.GroupUnknown || errors.Is(err, broker.ErrUnauthorized))
	}
	return k.pullOne(ctx, b, topic, queue, offset)
}

// pullOne pulls at most one message, in the name of the group.
func (k *consumer) pullOne(ctx context.Context, b *brokerConn, topic string, queue int, offset int64) (p pullResult, err error) {
	response, err := b.call(ctx, &remoting.Command{Code: remoting.PullMessage, Ext: k.queueFields(topic, queue,
		"queueOffset", strconv.FormatInt(offset, 10), "maxMsgNums", "1", "sysFlag", strconv.Itoa(pullWithSubscription), "commitOffset", "0",
		"suspendTimeoutMillis", "0", "subscription", "*", "subVersion", "0", "expressionType", "TAG")})
	if response == nil {
		return p, err
	}
	// A response without a message is an error, too, and has the bounds all the same.
	for name, number := range map[string]*int64{"minOffset": &p.begin, "maxOffset": &p.end, "nextBeginOffset": &p.next} {
		var malformed error
		if *number, malformed = strconv.ParseInt(response.Ext[name], 10, 64); malformed != nil {
			return p, cmp.Or(err, errNoOffset)
		}
	}
	if err == nil {
		records, err := remoting.DecodeRecords(response.Body)
		if err != nil {
			return p, err
		}
		if len(records) > 0 {
			p.record = records[0]
		}
	}
	return p, nil
}
