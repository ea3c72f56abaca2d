package rocketmq_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestRocketMQsToolsSeeTheConsumer: mqadmin shows what a consumer does, with its stacks, moves its offsets and has it handle a message.
func TestRocketMQsToolsSeeTheConsumer(t *testing.T) {
	t.Parallel()
	mq, real := testbroker.Start(t).(*devstack.RocketMQ)
	if !real {
		t.Skip("needs mqadmin and a real RocketMQ")
	}
	ctx := deadline(t, 5*time.Minute)
	admin := func(args ...string) string {
		t.Helper()
		out, err := mq.Admin(ctx, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	c := open(t, at(mq), func(c *rocketmq.Config) { c.Transport = rocketmq.Own })
	createTopic(t, c, broker.Topic{Name: "topic", Queues: 1})
	came, _ := collect(t, c, "group", "topic")
	began := time.Now()
	var last broker.Delivery
	for i := range 5 {
		if _, err := c.Send(ctx, broker.Message{Topic: "topic", Body: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
		last = next(t, came)
	}
	ids, err := testbroker.Members(ctx, mq.NameServer(), "group")
	if err != nil || len(ids) != 1 {
		t.Fatalf("members %v, %v", ids, err)
	}
	// mqadmin fails by what it prints: on a busy machine its own start uses up the time of its first request.
	succeeds := func(parts []string, args ...string) {
		t.Helper()
		poll.Succeeds(t, 2*time.Minute, func() error {
			out := admin(args...)
			for _, part := range parts {
				if !strings.Contains(out, part) {
					return fmt.Errorf("%s doesn't print %q: %s", args[0], part, out)
				}
			}
			return nil
		})
	}
	succeeds([]string{"PROP_CONSUME_TYPE", "CONSUME_PASSIVELY", "topic", "goroutine "}, "consumerStatus", "-g", "group", "-i", ids[0], "-s")
	poll.Succeeds(t, 30*time.Second, func() error { // RocketMQ 4 resets what was committed
		positions, err := c.QueuePositions(ctx, "group", "topic")
		if err == nil && positions[0].Committed != 5 {
			err = fmt.Errorf("committed %d", positions[0].Committed)
		}
		return err
	})
	succeeds([]string{"broker-a"}, "resetOffsetByTime", "-g", "group", "-t", "topic", "-s", strconv.FormatInt(began.Add(-time.Minute).UnixMilli(), 10))
	again := map[string]bool{}
	for range 5 {
		again[string(next(t, came).Body)] = true
	}
	if len(again) != 5 {
		t.Errorf("after the reset came %v", again)
	}
	if !testbroker.Is4() { // whose mqadmin sets no offset of one queue
		// As Consumer.Err says when a queue can't be read beyond a record.
		succeeds([]string{"reset consumer offset to 3"}, "resetOffsetByTime", "-g", "group", "-t", "topic", "-q", "0", "-b", mq.Broker(), "-o", "3", "-s", "now")
		for range 2 {
			if d := next(t, came); d.Offset < 3 {
				t.Errorf("after the reset came offset %d", d.Offset)
			}
		}
	}
	succeeds([]string{"CR_SUCCESS"}, "queryMsgByUniqueKey", "-t", "topic", "-i", last.ID, "-g", "group", "-d", ids[0])
	if d := next(t, came); d.ID != last.ID || d.Offset != last.Offset {
		t.Errorf("got %+v, want %+v", d, last)
	}
}
