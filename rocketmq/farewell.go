package rocketmq

import (
	"context"
	"slices"
	"sync"
	"time"

	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// farewell finds the moment at which a consumer of the client may go. The client ends its connection whatever is under
// way on it. If that is a heartbeat, a broker may handle the connection's end first and the heartbeat then: it lists the
// consumer for two minutes more, and nobody reads what it gives it. (RocketMQ 5.3.3 did so with one in eight of the
// consumers that stopped just after they or others had joined: TestStopLeavesNoGhost.)
//
// Heartbeats can't be seen. But they follow what is known: the start, each change of the consumer's queues, as the
// strategy that allots them is ours, and the clock.
type farewell struct {
	after time.Duration // a change; negative: go at once

	mu     sync.Mutex
	start  time.Time
	moved  time.Time          // when the queues last changed, or the start
	queues map[string][]queue // by topic
}

// The client's heartbeats by the clock: a second after the start, and each 30 s from then on. So long before and after one
// nobody goes.
const (
	firstHeartbeat  = time.Second
	clientHeartbeat = 30 * time.Second
	beforeHeartbeat = 50 * time.Millisecond
	afterHeartbeat  = 500 * time.Millisecond
)

func newFarewell(after time.Duration) *farewell {
	now := time.Now()
	return &farewell{after: after, start: now, moved: now, queues: map[string][]queue{}}
}

// allot is the client's default strategy, and notes whether it changes anything. A broker lists a consumer twice
// that had to connect anew, if its old connection broke under a heartbeat, and a second share would be nobody's. (The
// client sorts the list.)
func (f *farewell) allot(group, client string, all []*primitive.MessageQueue, clients []string) []*primitive.MessageQueue {
	mine := rmqconsumer.AllocateByAveragely(group, client, all, slices.Compact(slices.Clone(clients)))
	if len(all) == 0 {
		return mine
	}
	topic, ids := all[0].Topic, make([]queue, len(mine))
	for i, q := range mine {
		ids[i] = queue{q.BrokerName, q.QueueId}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(ids, f.queues[topic]) {
		f.queues[topic], f.moved = ids, time.Now()
	}
	return mine
}

// wait waits until it is time to go, or ctx ends.
func (f *farewell) wait(ctx context.Context) {
	for {
		rest := f.rest(time.Now())
		if rest <= 0 {
			return
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

func (f *farewell) rest(now time.Time) time.Duration {
	if f.after < 0 {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := f.moved.Add(f.after).Sub(now)
	const window = beforeHeartbeat + afterHeartbeat
	if since := now.Sub(f.start) - firstHeartbeat + beforeHeartbeat; since >= 0 && since%clientHeartbeat < window {
		rest = max(rest, window-since%clientHeartbeat)
	}
	return rest
}
