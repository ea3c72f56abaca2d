package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/rocketmq-client-go/v2/primitive"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// transactor sends half messages with the client, and ends and checks them on our own connections.
type transactor struct {
	client *Client
	group  string
	checks *checks
}

// OpenTransactionProducer implements broker.TransactionProducerOpener. A group can be open once in a Client.
func (c *Client) OpenTransactionProducer(ctx context.Context, group string, check broker.Checker) (broker.TransactionProducer, error) {
	fail := func(err error) (broker.TransactionProducer, error) {
		return nil, printable.Errorf("open transactor %s: %w", group, err)
	}
	group = c.config.wire(group)
	if !groupName.MatchString(group) {
		return fail(fmt.Errorf("%w: want 1 to 120 letters, digits, %% | _ or - as a group's name", broker.ErrIllegal))
	}
	t := &transactor{client: c, group: group}
	t.checks = newChecks(t, check)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return fail(errClientClosed)
	case c.transactors[group] != nil:
		c.mu.Unlock()
		return fail(fmt.Errorf("%w: it is open already", broker.ErrIllegal))
	}
	c.transactors[group] = t
	c.mu.Unlock()
	t.checks.start()

	// A link that is down registers the group when it comes up.
	var last error
	registered := 0
	for _, l := range c.allLinks() {
		if err := l.register(ctx); err != nil {
			last = err
			continue
		}
		registered++
	}
	if registered == 0 {
		if last == nil {
			last = fmt.Errorf("%w: no broker is known", broker.ErrUnavailable)
		}
		if c.config.AwaitBroker && !errors.Is(last, broker.ErrRejected) {
			return t, nil
		}
		t.Close(ctx)
		return fail(last)
	}
	return t, nil
}

func (t *transactor) Prepare(ctx context.Context, m broker.Message) (broker.Half, error) {
	result, err := t.client.send(ctx, m, map[string]string{
		primitive.PropertyTransactionPrepared: "true",
		primitive.PropertyProducerGroup:       t.group,
	})
	if err != nil {
		return broker.Half{}, err
	}
	_, commitLog, err := remoting.ParseOffsetID(result.OffsetMsgID)
	if err != nil {
		return broker.Half{}, printable.Errorf("prepare message %s: answer of broker %s: %w", result.MsgID, result.MessageQueue.BrokerName, err)
	}
	h := broker.Half{
		MessageID: result.MsgID, Topic: t.client.config.wire(m.Topic), Broker: result.MessageQueue.BrokerName, Group: t.group,
		TransactionID: result.TransactionID, QueueOffset: result.QueueOffset, CommitLog: commitLog,
	}
	if l := t.client.link(h.Broker); l != nil {
		h.Address = l.address
	}
	return h, nil
}

func (t *transactor) Commit(ctx context.Context, h broker.Half) error {
	return t.end(ctx, h, broker.Commit, false)
}

func (t *transactor) Rollback(ctx context.Context, h broker.Half) error {
	return t.end(ctx, h, broker.Rollback, false)
}

// end waits for the broker's answer, so that an end that was lost is known to be, and ends of one caller keep their
// order. (The broker doesn't answer an end with unknown, which therefore is not sent.)
func (t *transactor) end(ctx context.Context, h broker.Half, d broker.Decision, asked bool) error {
	how := remoting.TransactionCommit
	if d == broker.Rollback {
		how = remoting.TransactionRollback
	}
	request := &remoting.Command{Code: remoting.EndTransaction, Ext: map[string]string{
		"topic":                h.Topic,
		"producerGroup":        h.Group,
		"tranStateTableOffset": strconv.FormatInt(h.QueueOffset, 10),
		"commitLogOffset":      strconv.FormatInt(h.CommitLog, 10),
		"commitOrRollback":     strconv.Itoa(how),
		"fromTransactionCheck": strconv.FormatBool(asked),
		"msgId":                h.MessageID,
		"transactionId":        h.TransactionID,
		"bname":                h.Broker,
	}}
	fail := func(err error) error {
		return printable.Errorf("end half message %s on broker %s: %w", h.MessageID, h.Broker, err)
	}
	ctx, cancel := context.WithTimeout(ctx, t.client.config.SendTimeout)
	defer cancel()
	l, err := t.client.linkOf(ctx, h)
	if err != nil {
		return fail(err)
	}
	if _, err := l.call(ctx, request); err != nil {
		return fail(err)
	}
	return nil
}

// linkOf finds the link to the broker that holds a half message: by name, as after a failover the offsets are the same
// on the new master. A broker that has joined since the last look is found too.
func (c *Client) linkOf(ctx context.Context, h broker.Half) (*link, error) {
	l := c.link(h.Broker)
	if l == nil {
		if err := c.updateLinks(ctx); err != nil {
			return nil, err
		}
		if l = c.link(h.Broker); l == nil {
			return nil, fmt.Errorf("%w: the broker isn't known", broker.ErrUnavailable)
		}
	}
	select {
	case <-l.tried:
		return l, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", l.down(), context.Cause(ctx))
	}
}

// Close implements broker.TransactionProducer.
func (t *transactor) Close(ctx context.Context) error {
	c := t.client
	c.mu.Lock()
	if c.transactors[t.group] != t {
		c.mu.Unlock()
		return nil
	}
	delete(c.transactors, t.group)
	c.mu.Unlock()
	// The brokers then ask someone else. Without it they would go on to ask us, and count each question.
	for _, l := range c.allLinks() {
		if l.down() != nil {
			continue
		}
		if _, err := l.call(ctx, &remoting.Command{Code: remoting.UnregisterClient, Ext: map[string]string{
			"clientID": c.id, "producerGroup": t.group,
		}}); err != nil {
			c.log.Warn("a broker was not told that the producer group is left; until it notices it asks here what became of half messages",
				"group", t.group, "broker", l.name, "error", err)
		}
	}
	if err := t.checks.stop(ctx); err != nil {
		return printable.Errorf("close transactor %s: checks at hand: %w", t.group, err)
	}
	return nil
}
