package rocketmq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// A broker tells which messages it holds for a key, that one was a half message, and how far a group has read: nothing before it
// has read anything, and nothing is created by asking.
func TestBrokerTellsWhatItHoldsAndWhatAGroupHasRead(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 3*time.Minute)
	c := open(t)
	topic, group := unique("inspect"), unique("reader")
	createTopic(t, c, broker.Topic{Name: topic, Queues: 2})
	var sent []broker.Receipt
	for i := range 5 {
		r, err := c.Send(ctx, broker.Message{Topic: topic, Keys: []string{fmt.Sprint("key-", i), "all"}, ShardingKey: "one queue", Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, r)
	}
	p, err := c.OpenTransactionProducer(ctx, unique("producer"), func(context.Context, broker.Check) (broker.Decision, func(error)) { return broker.Unknown, nil })
	if err != nil {
		t.Fatal(err)
	}
	half, err := p.Prepare(ctx, broker.Message{Topic: topic, Keys: []string{"half"}, Body: []byte("x")})
	if err == nil {
		err = p.Commit(ctx, half)
	}
	if err != nil {
		t.Fatal(err)
	}

	find := func(key string) (found []broker.StoredMessage) {
		t.Helper()
		poll.Succeeds(t, time.Minute, func() error { // the index is written a moment later
			var err error
			if found, err = c.FindMessages(ctx, topic, key, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)); err == nil && len(found) == 0 {
				err = errors.New("not found")
			}
			return err
		})
		return found
	}
	one := find("key-3")
	if m := one[0]; len(one) != 1 || m.Topic != topic || m.Queue != sent[3].Queue || m.Offset != sent[3].Offset || m.Broker != sent[3].Broker ||
		m.ID != sent[3].MessageID || m.Transactional || !slices.Contains(m.Keys, "all") || m.Stored.IsZero() {
		t.Errorf("found %+v, sent %+v", one, sent[3])
	}
	if m := find("half"); len(m) != 1 || !m[0].Transactional || m[0].Checks != 0 {
		t.Errorf("half message: %+v", m)
	}
	if m := find(sent[0].MessageID); len(m) != 1 || m[0].Offset != sent[0].Offset {
		t.Errorf("by the unique key: %+v", m)
	}
	if none, err := c.FindMessages(ctx, topic, "no such key", time.Now().Add(-time.Hour), time.Now()); err != nil || len(none) != 0 {
		t.Errorf("a key that no message has: %v, %v", none, err)
	}
	if m, err := c.MessageByOffsetID(ctx, one[0].OffsetID); err != nil || m.ID != one[0].ID || m.Topic != topic {
		t.Errorf("by the broker's id: %+v, %v", m, err)
	}
	for _, id := range []string{one[0].OffsetID[:16] + "7FFFFFFFFFFFFFFF", "0102030400002A9F0000000000000001"} {
		if _, err := c.MessageByOffsetID(ctx, id); !errors.Is(err, broker.ErrNoMessage) {
			t.Errorf("%s: got %v", id, err)
		}
	}

	positions := func() (committed []int64, lag int64) {
		t.Helper()
		list, err := c.QueuePositions(ctx, group, topic)
		if err != nil || len(list) != 2 {
			t.Fatalf("positions: %+v, %v", list, err)
		}
		for _, p := range list {
			committed = append(committed, p.Committed)
			lag += p.Lag()
			if p.Committed >= 0 && p.Lag() > 0 && p.Unread.IsZero() {
				t.Errorf("it doesn't say since when a message is unread: %+v", p)
			}
		}
		return committed, lag
	}
	for range 2 {
		if committed, lag := positions(); !slices.Equal(committed, []int64{-1, -1}) || lag != 6 {
			t.Errorf("before the group has read: %v, lag %d", committed, lag)
		}
	}
	came, k := collect(t, c, group, topic)
	for read := map[string]bool{}; len(read) < 6; { // a message may come twice
		read[next(t, came).ID] = true
	}
	if err := k.Stop(ctx); err != nil { // it stores its offsets
		t.Fatal(err)
	}
	poll.Succeeds(t, time.Minute, func() error {
		if committed, lag := positions(); lag != 0 {
			return fmt.Errorf("after the group has read: %v, lag %d", committed, lag)
		}
		return nil
	})
	if _, err := c.Send(ctx, broker.Message{Topic: topic, ShardingKey: "one queue", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, lag := positions(); lag != 1 {
		t.Errorf("lag %d after one more message", lag)
	}
	if _, err := c.QueuePositions(ctx, group, unique("no-topic")); !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("a topic that doesn't exist: %v", err)
	}
}

// Name servers drop a broker that is away from the routes of its topics. What it holds is not lost then: the client doesn't say that nothing
// is there, while it knows of the broker.
func TestInspectionNoticesABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 1)
	var two atomic.Bool
	f := newFront(t, mq, func(request, response *remoting.Command) {
		if request.Code == remoting.RouteOfTopic && two.Load() {
			response.Body = bytes.Replace(response.Body, []byte(`"queueDatas":[`), []byte(`"queueDatas":[{"brokerName":"other","readQueueNums":1,"writeQueueNums":1,"perm":6},`), 1)
		}
	})
	c := own(t, f.address)
	look := func() error {
		_, err := c.FindMessages(t.Context(), "topic", "key", time.Now().Add(-time.Hour), time.Now())
		_, positions := c.QueuePositions(t.Context(), "group", "topic")
		if (err == nil) != (positions == nil) {
			t.Errorf("messages: %v, positions: %v", err, positions)
		}
		return err
	}
	if err := look(); err != nil {
		t.Fatal(err)
	}
	for _, listed := range []bool{true, false} {
		two.Store(listed)
		if err := look(); !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "broker other") {
			t.Errorf("listed %v: got %v", listed, err)
		}
	}
}

// A broker without an index of keys finds nothing. The client notices that, and doesn't say that nothing is there.
func TestInspectionNoticesAMissingIndex(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("topic", 2)
	later := new(rocketmqtest.Clock) // than when the message is stored: the index of a young one may be late
	later.Advance(time.Hour)
	c := own(t, mq.Addr(), func(c *rocketmq.Config) { c.Clock = later })
	find := func(key string) (int, error) {
		found, err := c.FindMessages(t.Context(), "topic", key, time.Now().Add(-2*time.Hour), time.Now())
		return len(found), err
	}
	mq.CreateTopic("empty", 2)
	if found, err := c.FindMessages(t.Context(), "empty", "key", time.Now().Add(-time.Hour), time.Now()); len(found) != 0 || err != nil {
		t.Errorf("of an empty topic: %v, %v", found, err)
	}
	if _, err := c.Send(t.Context(), broker.Message{Topic: "topic", Keys: []string{"key"}, Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	remove := mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Code == int(remoting.QueryMessage) {
			return rocketmqtest.Respond(int(remoting.QueryNotFound), "")
		}
		return rocketmqtest.Pass
	})
	for range 2 {
		if n, err := find("key"); n != 0 || err == nil || !strings.Contains(err.Error(), "messageIndexEnable") {
			t.Errorf("without an index: %d, %v", n, err)
		}
	}
	remove()
	for key, want := range map[string]int{"key": 1, "absent": 0} {
		if n, err := find(key); n != want || err != nil {
			t.Errorf("%s: %d, %v", key, n, err)
		}
	}
}
