package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

var _ broker.Inspector = (*Client)(nil)

// maxFound is the maximum number of messages that a broker returns for a key. Brokers limit it to 32 by default.
const maxFound = 32

// checkTimes is the property in which a broker counts the check-backs about a half message.
const checkTimes = "TRANSACTION_CHECK_TIMES"

// FindMessages implements broker.Inspector. With access control the user needs the grant Get or Sub on the topic.
func (c *Client) FindMessages(ctx context.Context, topic, key string, from, to time.Time) ([]broker.StoredMessage, error) {
	queues, err := c.inspection("").allQueues(ctx, c.config.wireName(topic))
	if err != nil {
		return nil, fmt.Errorf("find message: %w", err)
	}
	var found []broker.StoredMessage
	for _, q := range queues {
		if q.conn == nil {
			return found, printable.Errorf("find message: %w: broker %s isn't connected", broker.ErrUnavailable, q.Broker)
		}
		here, err := c.findAt(ctx, q.conn, topic, key, from, to)
		if err == nil && len(here) == 0 {
			err = c.checkIndex(ctx, q, topic)
		}
		if err != nil {
			return found, printable.Errorf("find message: broker %s: %w", q.Broker, err)
		}
		found = append(found, here...)
	}
	slices.SortStableFunc(found, func(a, b broker.StoredMessage) int { return a.Stored.Compare(b.Stored) })
	return found, nil
}

// findAt returns the messages of one broker that have a key.
func (c *Client) findAt(ctx context.Context, b *brokerConn, topic, key string, from, to time.Time) (found []broker.StoredMessage, err error) {
	response, err := b.call(ctx, &remoting.Command{Code: remoting.QueryMessage, Ext: map[string]string{
		"topic": c.config.wireName(topic), "key": key, "maxNum": strconv.Itoa(maxFound),
		"beginTimestamp": strconv.FormatInt(from.UnixMilli(), 10), "endTimestamp": strconv.FormatInt(to.UnixMilli(), 10),
	}})
	var refused *remoting.ResponseError
	switch {
	case errors.As(err, &refused) && refused.Code == remoting.QueryNotFound:
		return nil, nil
	case err != nil:
		return nil, err
	}
	records, err := remoting.DecodeFirstRecords(response.Body, maxFound)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		m := c.storedMessage(b.name, r)
		if m.ID == key || slices.Contains(m.Keys, key) { // the broker's index has only digests of keys
			found = append(found, m)
		}
	}
	return found, nil
}

// checkIndex returns an error if a broker doesn't find messages by their keys, as with messageIndexEnable=false: then all that is looked for
// would seem to be lost. It looks for the oldest message of a queue, once for each connection. If the topic has none that can be looked for,
// it returns nil, and looks again after a minute.
func (c *Client) checkIndex(ctx context.Context, q readableQueues, topic string) error {
	k, name := c.inspection(""), c.config.wireName(topic)
	if at, ok := q.conn.nothingAt.Load(topic); ok && time.Since(at.(time.Time)) < time.Minute {
		return nil
	}
	for id := 0; id < q.Read && !q.conn.indexes.Load(); id++ {
		begin, err := k.bound(ctx, q.conn, remoting.MinOffset, name, id)
		if err != nil {
			return nil //nolint:nilerr // the right to look may be missing
		}
		oldest, err := k.pullAsTool(ctx, q.conn, name, id, begin)
		if err != nil || oldest.record == nil {
			continue
		}
		m := c.storedMessage(q.Broker, oldest.record)
		if m.ID == "" || c.config.Clock.Now().Sub(m.Stored) < time.Minute { // the index may be late
			continue
		}
		here, err := c.findAt(ctx, q.conn, topic, m.ID, m.Stored.Add(-time.Hour), m.Stored.Add(time.Hour))
		switch {
		case err != nil:
			return err
		case len(here) == 0:
			return errNoIndex
		}
		q.conn.indexes.Store(true)
	}
	if !q.conn.indexes.Load() {
		q.conn.nothingAt.Store(topic, time.Now())
	}
	return nil
}

var errNoIndex = errors.New("it doesn't find messages by their keys: set messageIndexEnable=true")

// MessageByOffsetID implements broker.Inspector.
func (c *Client) MessageByOffsetID(ctx context.Context, id string) (broker.StoredMessage, error) {
	host, commitLog, err := remoting.ParseOffsetID(id)
	if err != nil {
		return broker.StoredMessage{}, fmt.Errorf("find message: %w", err)
	}
	for _, b := range c.allBrokerConns() {
		if b.address != host.String() {
			continue
		}
		response, err := b.call(ctx, &remoting.Command{Code: remoting.MessageByID, Ext: map[string]string{"offset": strconv.FormatInt(commitLog, 10)}})
		var refused *remoting.ResponseError
		switch {
		case errors.As(err, &refused) && refused.Code == remoting.SystemError:
			return broker.StoredMessage{}, fmt.Errorf("%w with the id %s", broker.ErrNoMessage, id)
		case err != nil:
			return broker.StoredMessage{}, printable.Errorf("find message: broker %s: %w", b.name, err)
		}
		records, err := remoting.DecodeFirstRecords(response.Body, 2)
		if err != nil || len(records) != 1 {
			return broker.StoredMessage{}, printable.Errorf("find message: broker %s: %w", b.name, cmp.Or(err, errNoRecord))
		}
		return c.storedMessage(b.name, records[0]), nil
	}
	return broker.StoredMessage{}, fmt.Errorf("%w with the id %s: no broker has the address %s that the id names", broker.ErrNoMessage, id, host)
}

var errNoRecord = errors.New("the broker's response doesn't have one message")

// QueuePositions implements broker.Inspector. With access control the user needs the grant Sub on the topic and the group.
func (c *Client) QueuePositions(ctx context.Context, group, topic string) ([]broker.QueuePosition, error) {
	k := c.inspection(group)
	topic = c.config.wireName(topic)
	queues, err := k.allQueues(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("read offsets of group %s: %w", group, err)
	}
	var all []broker.QueuePosition
	for _, q := range queues {
		if q.conn == nil {
			return nil, printable.Errorf("read offsets of group %s: %w: broker %s isn't connected", group, broker.ErrUnavailable, q.Broker)
		}
		for id := range q.Read {
			p, err := k.queuePosition(ctx, q.conn, topic, id)
			if err != nil {
				return nil, printable.Errorf("read offsets of group %s: queue %d of broker %s: %w", group, id, q.Broker, err)
			}
			all = append(all, p)
		}
	}
	return all, nil
}

// allQueues returns the queues of a topic on all of its brokers. Name servers drop a broker that is away from the route, and what it holds
// would seem to be lost: so the error matches broker.ErrUnavailable if the client knows of one.
func (k *consumer) allQueues(ctx context.Context, topic string) ([]readableQueues, error) {
	queues, err := k.readableQueues(ctx, topic)
	if err != nil {
		return nil, err
	}
	if name := k.client.awayFrom(topic, queues); name != "" {
		return nil, printable.Errorf("%w: broker %s, which may hold messages of topic %s, is away; restart this process if it was removed for good", broker.ErrUnavailable, name, topic)
	}
	return queues, nil
}

// awayFrom returns the name of a broker that is down, not in the route of a topic, and may hold messages of it; empty: none is known. It may
// if it was in the route before, or if it was up once and is not forgotten: the topic may not have been looked at since.
func (c *Client) awayFrom(topic string, route []readableQueues) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.inspected[topic]
	if known == nil {
		known = map[string]bool{}
		c.inspected[topic] = known
	}
	listed := map[string]bool{}
	for _, q := range route {
		known[q.Broker], listed[q.Broker] = true, true
	}
	isDown := func(name string) bool { b := c.brokerConns[name]; return b == nil || b.down() != nil }
	names := slices.Collect(maps.Keys(known))
	for name, b := range c.brokerConns {
		if b.brokerVersion() != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if i := slices.IndexFunc(names, func(name string) bool { return !listed[name] && isDown(name) }); i >= 0 {
		return names[i]
	}
	return ""
}

// inspection returns a consumer that is never started, for requests that name its group.
func (c *Client) inspection(group string) *consumer {
	return &consumer{client: c, subscription: broker.Subscription{Group: c.config.wireName(group)}}
}

func (k *consumer) queuePosition(ctx context.Context, b *brokerConn, topic string, queue int) (broker.QueuePosition, error) {
	p := broker.QueuePosition{Broker: b.name, Queue: queue}
	var err error
	if p.Committed, err = k.offset(ctx, b, topic, queue); err != nil {
		return p, err
	}
	if p.Committed == 0 && is4(b.brokerVersion()) {
		if listed, err := k.listsOffset(ctx, b, topic, queue); err == nil && !listed { // where the list is refused, the 0 stands
			p.Committed = -1
		}
	}
	if p.Committed < 0 {
		// A pull for a group that doesn't exist would create it.
		if p.End, err = k.bound(ctx, b, remoting.MaxOffset, topic, queue); err != nil {
			return p, err
		}
		p.Begin, err = k.bound(ctx, b, remoting.MinOffset, topic, queue)
		return p, err // Oldest stays zero: only a pull shows it
	}
	pulled, err := k.pullAsTool(ctx, b, topic, queue, p.Committed)
	p.Begin, p.End = pulled.begin, pulled.end
	if err == nil && pulled.stored().IsZero() && p.Committed < p.Begin && p.Begin < p.End { // the unread messages before Begin have expired
		if pulled, err = k.pullAsTool(ctx, b, topic, queue, p.Begin); err == nil {
			p.Begin, p.End = pulled.begin, pulled.end
		}
	}
	p.Unread = pulled.stored()
	if err == nil && p.Begin > 0 && p.Begin < p.End {
		var oldest pullResult
		oldest, err = k.pullAsTool(ctx, b, topic, queue, p.Begin)
		p.Oldest = oldest.stored()
	}
	return p, err
}

// bound returns an end of a queue.
func (k *consumer) bound(ctx context.Context, b *brokerConn, code remoting.Code, topic string, queue int) (int64, error) {
	response, err := b.call(ctx, &remoting.Command{Code: code, Ext: k.queueFields(topic, queue)})
	if err != nil {
		return 0, err
	}
	offset, err := strconv.ParseInt(response.Ext["offset"], 10, 64)
	if err != nil {
		return 0, errNoOffset
	}
	return offset, nil
}

// storedMessage returns a record as the caller sees it: with the topic without its namespace. The body is as it is stored.
func (c *Client) storedMessage(brokerName string, r *remoting.Record) broker.StoredMessage {
	m := broker.StoredMessage{Delivery: newDelivery(c.config.topicOf(r.Topic), r.Properties, r.Body)}
	m.Broker, m.Queue, m.Offset, m.Born, m.Stored = brokerName, r.Queue, r.QueueOffset, r.Born, r.Stored
	m.OffsetID = remoting.OffsetID(r.StoreHost, r.CommitLog)
	m.Transactional = r.SysFlag&remoting.FlagTransaction == remoting.TransactionCommit
	m.Checks, _ = strconv.Atoi(r.Properties[checkTimes]) // 0 if there is none
	return m
}
