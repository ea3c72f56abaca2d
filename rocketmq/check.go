package rocketmq

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	checkWorkers    = 32
	maxQueuedChecks = 1024
	checkTimeout    = 5 * time.Second
)

// checkQueue decides the checks of one producer group with the application's Checker, in checkWorkers goroutines, and sends each
// decision to the broker. A check that finds the queue full is dropped: the broker repeats it.
type checkQueue struct {
	producer *transactionProducer
	checker  broker.Checker
	queue    chan broker.Check
	ctx      context.Context // of the calls of checker; ends when stop has finished or given up waiting
	cancel   context.CancelFunc
	workers  sync.WaitGroup

	mu      sync.Mutex
	stopped bool // queue is closed
}

func newCheckQueue(p *transactionProducer, checker broker.Checker) *checkQueue {
	q := &checkQueue{producer: p, checker: checker, queue: make(chan broker.Check, maxQueuedChecks)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

func (q *checkQueue) start() {
	for range checkWorkers {
		q.workers.Go(func() {
			for check := range q.queue {
				q.answer(check)
			}
		})
	}
}

// stop takes no more checks and waits until those in the queue are answered, or until ctx ends.
func (q *checkQueue) stop(ctx context.Context) error {
	q.mu.Lock()
	if !q.stopped {
		q.stopped = true
		close(q.queue)
	}
	q.mu.Unlock()
	defer q.cancel()
	return background.Wait(ctx, &q.workers)
}

func (q *checkQueue) add(check broker.Check) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return
	}
	select {
	case q.queue <- check:
	default:
		q.producer.client.listener.CheckDropped(q.info(check))
	}
}

func (q *checkQueue) info(check broker.Check) CheckInfo {
	return CheckInfo{Group: q.producer.group, Topic: check.Half.Topic, MessageID: check.Half.MessageID, Attempt: check.Message.Attempt}
}

// answer decides one check, ends the half message if the decision is Commit or Rollback, and reports the result.
func (q *checkQueue) answer(check broker.Check) {
	start := time.Now()
	decision, done, err := q.decide(check)
	info := q.info(check)
	info.Decision, info.Err = decision, err
	if decision != broker.Unknown {
		info.Err = q.producer.end(q.ctx, check.Half, decision, true)
	}
	if done != nil {
		if ended := guard.Run(func() { done(info.Err) }); ended != nil {
			q.producer.client.logPanic("the done function of a checker", ended, keyGroup, q.producer.group, keyMessageID, check.Half.MessageID)
		}
	}
	info.Took = time.Since(start)
	q.producer.client.listener.CheckAnswered(info)
}

// decide calls the checker. A decision after the deadline counts as Unknown, because the broker may have repeated the check by
// then; the error, which done gets, reports that the decision was not taken.
func (q *checkQueue) decide(check broker.Check) (decision broker.Decision, done func(error), err error) {
	ctx, cancel := context.WithTimeout(q.ctx, checkTimeout)
	defer cancel()
	ended := guard.Run(func() { decision, done = q.checker(ctx, check) })
	if ended != nil {
		q.producer.client.logPanic("a checker", ended, keyGroup, q.producer.group, keyMessageID, check.Half.MessageID)
		return broker.Unknown, nil, printable.Errorf("checker: %w", ended)
	}
	switch {
	case decision != broker.Commit && decision != broker.Rollback:
		return broker.Unknown, done, nil
	case ctx.Err() != nil:
		return broker.Unknown, done, fmt.Errorf("checker returned too late: %w", context.Cause(ctx))
	}
	return decision, done, nil
}

// handleRequests returns the handler of what the broker requests on a connection.
func (c *Client) handleRequests(b *brokerConn) remoting.Handler {
	return func(conn *remoting.Conn, request *remoting.Command) *remoting.Command {
		return b.user.handleRequest(b, conn, request)
	}
}

// handleRequest implements connUser: it handles checks of half messages.
func (c *Client) handleRequest(b *brokerConn, _ *remoting.Conn, request *remoting.Command) *remoting.Command {
	if request.Code != remoting.CheckTransactionState {
		return request.Answer(remoting.NotSupported, "this client is a producer and doesn't handle the request")
	}
	check, err := decodeCheck(b, request)
	if err != nil {
		c.log.Warn("a check of a half message can't be decoded; it is ignored and the broker repeats it", keyBroker, b.name, keyError, err)
		return nil
	}
	check.Message.Topic = c.config.topicOf(check.Message.Topic)
	c.mu.Lock()
	p := c.transactionProducers[check.Half.Group]
	c.mu.Unlock()
	if p != nil {
		p.checks.add(check)
	}
	return nil // the decision is sent as a request, END_TRANSACTION
}

// decodeCheck decodes a broker's request to check a half message. The message has no body: a checker has no use for it, and it may
// be large or impossible to decompress.
func decodeCheck(b *brokerConn, request *remoting.Command) (broker.Check, error) {
	var check broker.Check
	records, err := remoting.DecodeFirstRecords(request.Body, 2)
	if err != nil {
		return check, err
	}
	if len(records) != 1 {
		return check, fmt.Errorf("%d records or more, want 1", len(records))
	}
	r := records[0]
	m := newDelivery(r.Topic, r.Properties, nil)
	m.Broker, m.Queue, m.Offset, m.Born, m.Stored = b.name, r.Queue, r.QueueOffset, r.Born, r.Stored
	m.Attempt, _ = strconv.Atoi(r.Properties[primitive.PropertyTranscationCheckTimes])
	m.Attempt = max(m.Attempt, 1)
	check.Message = m
	check.Half = broker.Half{
		MessageID: m.ID, Topic: r.Topic, Broker: b.name, Address: b.address,
		Group:         r.Properties[primitive.PropertyProducerGroup],
		TransactionID: request.Ext["transactionId"],
		QueueOffset:   r.QueueOffset, CommitLog: r.CommitLog,
	}
	// The header identifies the half message. The record has the same offsets in all versions known today.
	if v, err := strconv.ParseInt(request.Ext["tranStateTableOffset"], 10, 64); err == nil {
		check.Half.QueueOffset = v
	}
	if v, err := strconv.ParseInt(request.Ext["commitLogOffset"], 10, 64); err == nil {
		check.Half.CommitLog = v
	}
	return check, nil
}
