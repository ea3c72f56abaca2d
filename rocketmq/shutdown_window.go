package rocketmq

import (
	"context"
	"slices"
	"sync"
	"time"

	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
)

// shutdownWindow finds a moment at which a consumer of rocketmq-client-go can disconnect while none of its heartbeats is in
// flight. The client closes the connection whatever is in flight on it. If that is a heartbeat, a broker may handle the end of
// the connection first and the heartbeat second: it then lists the consumer for two more minutes, and no consumer reads the queues
// that it assigns to it. (RocketMQ 5.3.3 did so with one in eight of the consumers that stopped just after they or others had
// joined: TestStopRemovesConsumersFromTheirGroup.)
//
// The client doesn't show its heartbeats. It sends them at its start, at each change of the consumer's queues, which
// shutdownWindow sees because it is the client's allocation strategy, and every 30 s.
type shutdownWindow struct {
	quietPeriod time.Duration // minimum time since the last change of the queues; negative: no window is needed

	mu      sync.Mutex
	started time.Time
	changed time.Time          // when the queues last changed; at first, when the consumer started
	queues  map[string][]queue // by topic
}

// The client sends heartbeats by the clock a second after its start and every 30 s from then on. No consumer disconnects from
// beforeHeartbeat to afterHeartbeat around one.
const (
	firstHeartbeat  = time.Second
	clientHeartbeat = 30 * time.Second
	beforeHeartbeat = 50 * time.Millisecond
	afterHeartbeat  = 500 * time.Millisecond
)

func newShutdownWindow(quietPeriod time.Duration) *shutdownWindow {
	now := time.Now()
	return &shutdownWindow{quietPeriod: quietPeriod, started: now, changed: now, queues: map[string][]queue{}}
}

// allocate assigns queues as the client's default strategy does, and records when they change. It ignores a client id that is
// listed twice: a broker lists a consumer so that had to reconnect, if its old connection broke while a heartbeat was in
// flight, and nobody would read the queues of the second entry. (The client sorts the list.)
func (w *shutdownWindow) allocate(group, clientID string, all []*primitive.MessageQueue, clientIDs []string) []*primitive.MessageQueue {
	mine := rmqconsumer.AllocateByAveragely(group, clientID, all, slices.Compact(slices.Clone(clientIDs)))
	if len(all) == 0 {
		return mine
	}
	topic, queues := all[0].Topic, make([]queue, len(mine))
	for i, q := range mine {
		queues[i] = queue{q.BrokerName, q.QueueId}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(queues, w.queues[topic]) {
		w.queues[topic], w.changed = queues, time.Now()
	}
	return mine
}

// wait returns when the window is open, or when ctx ends.
func (w *shutdownWindow) wait(ctx context.Context) {
	for {
		closed := w.closedFor(time.Now())
		if closed <= 0 || !background.Sleep(ctx, clock.System{}, closed) {
			return
		}
	}
}

// closedFor returns how long after now the window stays closed as far as is known; 0 or less: it is open.
func (w *shutdownWindow) closedFor(now time.Time) time.Duration {
	if w.quietPeriod < 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	closed := w.changed.Add(w.quietPeriod).Sub(now)
	const aroundHeartbeat = beforeHeartbeat + afterHeartbeat
	if since := now.Sub(w.started) - firstHeartbeat + beforeHeartbeat; since >= 0 && since%clientHeartbeat < aroundHeartbeat {
		closed = max(closed, aroundHeartbeat-since%clientHeartbeat)
	}
	return closed
}
