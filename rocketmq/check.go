package rocketmq

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

const (
	checkWorkers = 32
	checkBacklog = 1024
	checkTimeout = 5 * time.Second
)

// checks answers the checks of one producer group. What doesn't fit into the backlog is dropped: the broker asks again.
type checks struct {
	transactor *transactor
	checker    broker.Checker
	queue      chan broker.Check
	ctx        context.Context // of the checker's calls; ends when stop's patience does
	cancel     context.CancelFunc
	workers    sync.WaitGroup

	mu      sync.Mutex
	stopped bool // guards the closing of queue
}

func newChecks(t *transactor, checker broker.Checker) *checks {
	s := &checks{transactor: t, checker: checker, queue: make(chan broker.Check, checkBacklog)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *checks) start() {
	for range checkWorkers {
		s.workers.Go(func() {
			for check := range s.queue {
				s.answer(check)
			}
		})
	}
}

func (s *checks) stop(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.queue)
	}
	s.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		s.workers.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		s.cancel()
		return nil
	case <-ctx.Done():
		s.cancel()
		return context.Cause(ctx)
	}
}

func (s *checks) put(check broker.Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	select {
	case s.queue <- check:
	default:
		s.transactor.client.listener.CheckDropped(s.info(check))
	}
}

func (s *checks) info(check broker.Check) CheckInfo {
	return CheckInfo{Group: s.transactor.group, Topic: check.Half.Topic, MessageID: check.Half.MessageID, Attempt: check.Message.Attempt}
}

func (s *checks) answer(check broker.Check) {
	start := time.Now()
	decision, done, err := s.decide(check)
	info := s.info(check)
	info.Decision, info.Err = [...]string{"unknown", "commit", "rollback"}[decision], err
	if decision != broker.Unknown {
		info.Err = s.transactor.end(s.ctx, check.Half, decision, true)
	}
	if done != nil {
		if ended := guard.Run(func() { done(info.Err) }); ended != nil {
			s.transactor.client.sayEnded("checker's done", ended, "group", s.transactor.group, "message_id", check.Half.MessageID)
		}
	}
	info.Took = time.Since(start)
	s.transactor.client.listener.CheckAnswered(info)
}

// decide calls the checker. What it says after its deadline counts as unknown: by then the broker may have asked again.
// The error then tells the checker that its decision was not taken.
func (s *checks) decide(check broker.Check) (decision broker.Decision, done func(error), err error) {
	ctx, cancel := context.WithTimeout(s.ctx, checkTimeout)
	defer cancel()
	ended := guard.Run(func() { decision, done = s.checker(ctx, check) })
	if ended != nil {
		s.transactor.client.sayEnded("checker", ended, "group", s.transactor.group, "message_id", check.Half.MessageID)
		return broker.Unknown, nil, printable.Errorf("checker: %w", ended)
	}
	switch {
	case decision != broker.Commit && decision != broker.Rollback:
		return broker.Unknown, done, nil
	case ctx.Err() != nil:
		return broker.Unknown, done, fmt.Errorf("checker answered too late: %w", context.Cause(ctx))
	}
	return decision, done, nil
}

// serve handles what a broker asks on a link.
func (c *Client) serve(l *link) remoting.Handler {
	return func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
		if request.Code != remoting.CheckTransactionState {
			return nil
		}
		check, err := readCheck(l, request)
		if err != nil {
			c.log.Warn("check can't be read", "broker", l.name, "error", err)
			return nil
		}
		check.Message.Topic = c.config.bare(check.Message.Topic)
		c.mu.Lock()
		t := c.transactors[check.Half.Group]
		c.mu.Unlock()
		if t != nil {
			t.checks.put(check)
		}
		return nil // the answer is a request of its own
	}
}

// readCheck reads what a broker asks about: the message without its body.
func readCheck(l *link, request *remoting.Command) (broker.Check, error) {
	var check broker.Check
	records, err := remoting.DecodeRecords(request.Body)
	if err != nil {
		return check, err
	}
	if len(records) != 1 {
		return check, fmt.Errorf("%d records, want 1", len(records))
	}
	r := records[0]
	m := delivery(r.Topic, r.Properties, nil) // nobody reads the body, which may be large, and larger when it is decompressed
	m.Broker, m.Queue, m.Offset, m.Born, m.Stored = l.name, r.Queue, r.QueueOffset, r.Born, r.Stored
	m.Attempt, _ = strconv.Atoi(r.Properties[primitive.PropertyTranscationCheckTimes])
	m.Attempt = max(m.Attempt, 1)
	check.Message = m
	check.Half = broker.Half{
		MessageID: m.ID, Topic: r.Topic, Broker: l.name, Address: l.address,
		Group:         r.Properties[primitive.PropertyProducerGroup],
		TransactionID: request.Ext["transactionId"],
		QueueOffset:   r.QueueOffset, CommitLog: r.CommitLog,
	}
	// The request names the half message; the record in it is the same one unless a broker changes its ways.
	if v, err := strconv.ParseInt(request.Ext["tranStateTableOffset"], 10, 64); err == nil {
		check.Half.QueueOffset = v
	}
	if v, err := strconv.ParseInt(request.Ext["commitLogOffset"], 10, 64); err == nil {
		check.Half.CommitLog = v
	}
	return check, nil
}
