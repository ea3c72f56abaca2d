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

// transactionProducer implements broker.TransactionProducer. It sends half messages by the client's transport, and ends
// them and decides their checks through the driver's own connections.
type transactionProducer struct {
	client *Client
	group  string // on the wire
	checks *checkQueue
}

// OpenTransactionProducer implements [broker.TransactionProducerOpener]. A Client can have one open transaction producer for
// each group.
func (c *Client) OpenTransactionProducer(ctx context.Context, group string, check broker.Checker) (broker.TransactionProducer, error) {
	fail := func(err error) (broker.TransactionProducer, error) {
		return nil, printable.Errorf("open transaction producer %s: %w", group, err)
	}
	if err := c.config.Profile.RefusesHalfMessages(); err != nil {
		return fail(fmt.Errorf("%w: %w", broker.ErrNoHalfMessages, err))
	}
	group = c.config.wireName(group)
	if err := c.config.Profile.checkGroup(group); err != nil {
		return fail(err)
	}
	p := &transactionProducer{client: c, group: group}
	p.checks = newCheckQueue(p, check)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return fail(errClientClosed)
	case c.transactionProducers[group] != nil:
		c.mu.Unlock()
		return fail(fmt.Errorf("%w: the group has an open transaction producer in this client", broker.ErrIllegal))
	}
	c.transactionProducers[group] = p
	c.mu.Unlock()
	p.checks.start()

	// A connection that is down registers the group when it is up again.
	var last error
	registered := 0
	conns := c.allBrokerConns()
	if len(conns) == 0 && !c.config.Profile.Facts().ListsBrokers.Is {
		return p, nil // the group is registered by the first connections, which are made when the first topic is used
	}
	for _, b := range conns {
		if err := b.sendHeartbeat(ctx); err != nil {
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
			return p, nil
		}
		p.Close(ctx)
		return fail(last)
	}
	return p, nil
}

// Prepare implements broker.TransactionProducer.
func (p *transactionProducer) Prepare(ctx context.Context, m broker.Message) (broker.Half, error) {
	result, err := p.client.send(ctx, m, map[string]string{
		primitive.PropertyTransactionPrepared: "true",
		primitive.PropertyProducerGroup:       p.group,
	})
	if err != nil {
		return broker.Half{}, err
	}
	_, commitLog, err := remoting.ParseOffsetID(result.offsetID)
	if err != nil {
		return broker.Half{}, printable.Errorf("prepare message %s: response of broker %s: %w", result.receipt.MessageID, result.receipt.Broker, err)
	}
	h := broker.Half{
		MessageID: result.receipt.MessageID, Topic: p.client.config.wireName(m.Topic), Broker: result.receipt.Broker, Group: p.group,
		TransactionID: result.transactionID, QueueOffset: result.receipt.Offset, CommitLog: commitLog,
	}
	if b := p.client.brokerConn(h.Broker); b != nil {
		h.Address = b.address
	}
	return h, nil
}

// Commit implements broker.TransactionProducer.
func (p *transactionProducer) Commit(ctx context.Context, h broker.Half) error {
	return p.end(ctx, h, broker.Commit, false)
}

// Rollback implements broker.TransactionProducer.
func (p *transactionProducer) Rollback(ctx context.Context, h broker.Half) error {
	return p.end(ctx, h, broker.Rollback, false)
}

// end commits or rolls back a half message and waits for the broker's response: so a lost end is known to be lost, and ends that
// one caller requests in sequence take effect in that sequence. checked says that the decision answers a check. (A broker doesn't
// respond to the decision Unknown, which therefore is never sent.)
func (p *transactionProducer) end(ctx context.Context, h broker.Half, d broker.Decision, checked bool) error {
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
		"fromTransactionCheck": strconv.FormatBool(checked),
		"msgId":                h.MessageID,
		"transactionId":        h.TransactionID,
		"bname":                h.Broker,
	}}
	fail := func(err error) error {
		return printable.Errorf("%v of half message %s on broker %s: %w", d, h.MessageID, h.Broker, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.client.config.SendTimeout)
	defer cancel()
	b, err := p.client.brokerConnOfHalf(ctx, h)
	if err != nil {
		return fail(err)
	}
	if _, err := b.call(ctx, request); err != nil {
		return fail(err)
	}
	return nil
}

// brokerConnOfHalf returns the connection to the broker that holds a half message. It goes by the broker's name, not by its
// address: after a failover the new master has the same offsets. A broker that isn't known yet is looked up.
func (c *Client) brokerConnOfHalf(ctx context.Context, h broker.Half) (*brokerConn, error) {
	b := c.brokerConn(h.Broker)
	if b == nil {
		if err := c.updateBrokerConns(ctx); err != nil {
			return nil, err
		}
		if b = c.brokerConn(h.Broker); b == nil {
			return nil, fmt.Errorf("%w: no name server lists the broker", broker.ErrUnavailable)
		}
	}
	select {
	case <-b.tried:
		return b, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", b.down(), context.Cause(ctx))
	}
}

// Close implements broker.TransactionProducer.
func (p *transactionProducer) Close(ctx context.Context) error {
	c := p.client
	c.mu.Lock()
	if c.transactionProducers[p.group] != p {
		c.mu.Unlock()
		return nil
	}
	delete(c.transactionProducers, p.group)
	c.mu.Unlock()
	// Unregistered, the group's checks go to its other members. Otherwise brokers would go on to send them here, and count each.
	for _, b := range c.allBrokerConns() {
		if err := b.unregisterGroup(ctx, &remoting.Command{Code: remoting.UnregisterClient, Ext: map[string]string{
			"clientID": c.clientID, "producerGroup": p.group,
		}}); err != nil {
			c.log.Warn("a producer group could not be unregistered from a broker; until the broker notices it sends checks of the group's "+
				"half messages to this process, where they are ignored", keyGroup, p.group, keyBroker, b.name, keyError, err)
		}
	}
	if err := p.checks.stop(ctx); err != nil {
		return printable.Errorf("close transaction producer %s: checks in progress: %w", p.group, err)
	}
	return nil
}
