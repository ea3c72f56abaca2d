package rocketmq

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/groupmember"
	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

// unregisterTimeout bounds leaving a group at one broker.
const unregisterTimeout = 3 * time.Second

// ownConsumer is an instance of the transport Own: a member of the consumer group with connections of its own to the brokers of its
// topics, so that what it pulls doesn't delay sends, ends and checks. It has connections to their slaves as well, which list the group's
// members while a master is away. It implements groupmember.Network and connUser.
type ownConsumer struct {
	consumer *consumer
	clientID string
	version  int64 // of the subscription, for the broker
	member   *groupmember.Member

	direct chan struct{} // one token for each message that is handled at an operator's request

	mu      sync.Mutex
	leaving sync.WaitGroup // connections that are given up; Add with mu held, and not after stopped
	stopped bool
	conns   map[replica]*brokerConn
	known   map[string][]groupmember.Queue // by topic: the queues that a name server listed last, and those of brokers that may return
}

// replica is one of the servers of a broker.
type replica struct {
	broker string
	id     int // groupmember.Master, or the number of a slave
}

// newOwnConsumer starts a consumer.
func (k *consumer) newOwnConsumer() *ownConsumer {
	s, c := k.subscription, k.client
	o := &ownConsumer{
		consumer: k, clientID: c.config.Service + "-consumer-" + uuid.NewString(), version: time.Now().UnixMilli(),
		direct: make(chan struct{}, maxDirect), conns: map[replica]*brokerConn{}, known: map[string][]groupmember.Queue{},
	}
	o.member = groupmember.New(groupmember.Config{
		Network: o, Group: s.Group, ID: o.clientID, Topics: s.Topics, Serial: s.Serial, Slots: k.slots, MaxBuffered: s.MaxBuffered,
		Handle: o.handle, Logger: c.log,
	})
	o.member.Start()
	return o
}

// id implements instance.
func (o *ownConsumer) id() string { return o.clientID }

// err implements instance.
func (o *ownConsumer) err() error { return o.member.Err() }

// brokersChanged implements instance.
func (o *ownConsumer) brokersChanged() { o.member.Rebalance() }

// register implements instance.
func (o *ownConsumer) register(ctx context.Context) bool {
	for _, b := range o.allConns() {
		if b.down() == nil {
			_ = b.sendHeartbeat(ctx) // a connection that doesn't answer is made again
		}
	}
	o.member.Rebalance()
	return true
}

// stop implements instance. The broker has answered the last heartbeat when the consumer unregisters, so it doesn't list the consumer
// again.
func (o *ownConsumer) stop(ctx context.Context) error {
	err := o.member.Stop(ctx)
	o.mu.Lock()
	o.stopped = true
	o.mu.Unlock()
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), unregisterTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, b := range o.allConns() {
		all.Go(func() { o.leave(leaving, b) })
	}
	all.Wait()
	o.leaving.Wait()
	return err
}

// leave unregisters from a broker, whose connection it closes.
func (o *ownConsumer) leave(ctx context.Context, b *brokerConn) {
	if err := b.unregister(ctx, &remoting.Command{Code: remoting.UnregisterClient, Ext: map[string]string{
		"clientID": o.clientID, "consumerGroup": o.consumer.subscription.Group,
	}}); err != nil {
		o.consumer.client.log.Info("a consumer could not unregister from a broker, which removes it when it notices the end of the connection",
			keyGroup, o.consumer.subscription.Group, keyBroker, b.name, keyError, err)
	}
	b.close()
}

func (o *ownConsumer) allConns() []*brokerConn {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.conns))
}

// Queues implements groupmember.Network. It connects to the brokers of the topic.
//
// A broker that has come back a moment ago answers before the name servers list its topics again: its queues are as they were before it was
// away. They are kept while it is away, too, when other brokers have others.
func (o *ownConsumer) Queues(ctx context.Context, topic string) ([]groupmember.Queue, error) {
	c := o.consumer.client
	route, err := c.nameServers.route(ctx, topic)
	if err != nil {
		return nil, c.explainNotFound(topic, err)
	}
	o.connect(route)
	var queues []groupmember.Queue
	listed := map[string]bool{}
	for _, q := range route.Queues {
		listed[q.Broker] = true
		if q.Perm&remoting.PermRead == 0 {
			continue
		}
		for id := range q.Read {
			queues = append(queues, groupmember.Queue{Topic: topic, Broker: q.Broker, ID: id})
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	known := slices.Clone(queues)
	for _, q := range o.known[topic] {
		if !listed[q.Broker] && c.mayReturn(q.Broker) {
			known = append(known, q)
		}
	}
	slices.SortFunc(known, func(a, b groupmember.Queue) int {
		return cmp.Or(strings.Compare(a.Broker, b.Broker), cmp.Compare(a.ID, b.ID))
	})
	known = slices.Compact(known)
	o.known[topic] = known
	return slices.DeleteFunc(slices.Clone(known), func(q groupmember.Queue) bool { return !listed[q.Broker] && !c.isUp(q.Broker) }), nil
}

// maxReplicas is how many servers of one broker are connected to, whatever a name server lists.
const maxReplicas = 16

// connect connects to the masters and slaves of a route, again to those whose address has changed, and no longer to slaves that aren't
// listed. A master that isn't listed may return.
func (o *ownConsumer) connect(route remoting.Route) {
	type address struct {
		replica
		address string
	}
	var listed []address
	brokers := map[string]bool{}
	for _, b := range route.Brokers {
		brokers[b.Name] = true
		for _, id := range b.Replicas(maxReplicas) {
			listed = append(listed, address{replica{b.Name, id}, b.Addresses[strconv.Itoa(id)]})
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	replace := func(b *brokerConn) { // its server may have another role now: it must not list the consumer twice
		o.leaving.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), unregisterTimeout)
			defer cancel()
			o.leave(ctx, b)
		})
	}
	if !o.stopped {
		for r, b := range o.conns {
			if r.id != groupmember.Master && brokers[r.broker] && !slices.Contains(listed, address{r, b.address}) {
				replace(b)
				delete(o.conns, r)
			}
		}
		for _, l := range listed {
			old := o.conns[l.replica]
			if old != nil && old.address == l.address {
				continue
			}
			if old != nil {
				replace(old)
			}
			o.conns[l.replica] = o.consumer.client.newBrokerConn(o, l.broker, l.address)
		}
	}
}

// Replica implements groupmember.Network.
func (o *ownConsumer) Replica(name string, preferred int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	up := func(id int) bool {
		b := o.conns[replica{name, id}]
		return b != nil && b.down() == nil
	}
	if master := o.conns[replica{name, groupmember.Master}]; preferred == groupmember.Master && master != nil {
		select {
		case <-master.tried:
		default: // it is connected to for the first time
			return groupmember.Master
		}
	}
	for _, id := range []int{preferred, groupmember.Master} {
		if up(id) {
			return id
		}
	}
	slave := groupmember.Master
	for r := range o.conns {
		if r.broker == name && up(r.id) && (slave == groupmember.Master || r.id < slave) {
			slave = r.id
		}
	}
	return slave
}

// Call implements groupmember.Network.
func (o *ownConsumer) Call(ctx context.Context, name string, id int, request *remoting.Command) (*remoting.Command, error) {
	o.mu.Lock()
	b := o.conns[replica{name, id}]
	o.mu.Unlock()
	if b == nil {
		return nil, printable.Errorf("%w: no name server lists replica %d of broker %s", broker.ErrUnavailable, id, name)
	}
	select {
	case <-b.tried:
		return b.call(ctx, request)
	case <-ctx.Done():
		return nil, printable.Errorf("%w: %w", b.down(), context.Cause(ctx))
	}
}

// Connection implements groupmember.Network.
func (o *ownConsumer) Connection(name string) int64 {
	o.mu.Lock()
	b := o.conns[replica{name, groupmember.Master}]
	o.mu.Unlock()
	if b == nil {
		return 0
	}
	return b.present()
}

// heartbeat implements connUser.
func (o *ownConsumer) heartbeat() *remoting.Command {
	return heartbeatBody{
		ClientID: o.clientID, Producers: []heartbeatGroup{},
		Consumers: []heartbeatConsumer{{
			Group: o.consumer.subscription.Group, Type: "CONSUME_PASSIVELY", Model: "CLUSTERING", From: "CONSUME_FROM_FIRST_OFFSET",
			Subscriptions: o.subscriptions(),
		}},
	}.command()
}

func (o *ownConsumer) subscriptions() []heartbeatSubscription {
	var all []heartbeatSubscription
	for _, topic := range o.consumer.subscription.Topics {
		all = append(all, heartbeatSubscription{Topic: topic, Expression: "*", Type: "TAG", Version: o.version, Tags: []string{}, Codes: []int{}})
	}
	return all
}

// onBrokerUp implements connUser. The client has its own connection to the broker, and logs an outage for all.
func (o *ownConsumer) onBrokerUp(b *brokerConn, first bool) {
	if !first {
		o.consumer.client.log.Debug("consumer connected to a broker again", keyGroup, o.consumer.subscription.Group, keyBroker, b.name)
	}
	o.member.Rebalance()
}

// onBrokerDown implements connUser.
func (o *ownConsumer) onBrokerDown(b *brokerConn, err error) {
	if errors.Is(err, remoting.ErrClosed) {
		return
	}
	o.consumer.client.log.Debug("a consumer's connection to a broker is lost; it is made again",
		keyGroup, o.consumer.subscription.Group, keyBroker, b.name, keyError, err)
}

// handle calls the handler until it settles the message. It returns false when stop is closed first.
func (o *ownConsumer) handle(ctx context.Context, stop <-chan struct{}, m groupmember.Message) bool {
	d, release, ok := o.consumer.unpackRecord(stop, m)
	defer release()
	return ok && o.consumer.handle(ctx, stop, d, o.consumer.call)
}

// unpackRecord is unpack for a stored message.
func (k *consumer) unpackRecord(stop <-chan struct{}, m groupmember.Message) (d broker.Delivery, release func(), ok bool) {
	return k.unpack(stop, m.SysFlag&remoting.FlagCompressed != 0, func(maxBody int) broker.Delivery { return deliveryOfRecord(m, maxBody) })
}

// deliveryOfRecord returns the delivery of a stored message whose body, when it is decompressed, may have maxBody bytes.
func deliveryOfRecord(m groupmember.Message, maxBody int) broker.Delivery {
	body, err := m.Body, error(nil)
	switch {
	case m.Damage != nil:
		err = m.Damage
	case m.SysFlag&remoting.FlagInnerBatch != 0:
		err = errors.New("the message is a batch that its broker stores as one, which can't be read: send to a topic that isn't of type BatchCQ")
	case m.SysFlag&remoting.FlagCompressed != 0:
		body, err = bodyOf(m.SysFlag, m.Body, maxBody)
	}
	d := newDelivery(m.Queue.Topic, m.Properties, body)
	d.Broker, d.Queue, d.Offset, d.Born, d.Stored = m.Broker, m.ID, m.QueueOffset, m.Born, m.Stored
	d.Attempt = attemptOf(m.Reconsumed, m.Properties)
	d.Unreadable = err
	return d
}
