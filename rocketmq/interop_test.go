package rocketmq_test

import (
	"context"
	"testing"
	"time"

	rmq "github.com/apache/rocketmq-client-go/v2"
	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestInteroperatesWithPlainClients: messages of rocketmq-client-go alone are delivered, and it gets those of this package.
func TestInteroperatesWithPlainClients(t *testing.T) {
	usesClient(t)
	for _, transport := range transports {
		t.Run(transport.String(), func(t *testing.T) {
			t.Parallel()
			interop(t, transport)
		})
	}
}

func interop(t *testing.T, transport rocketmq.Transport) {
	t.Helper()
	ctx := deadline(t, 90*time.Second)
	c := open(t, func(c *rocketmq.Config) { c.Transport = transport })
	topic := unique("interop")
	createTopic(t, c, broker.Topic{Name: topic})
	ours, theirs := make(chan broker.Delivery, 10), make(chan *primitive.MessageExt, 10)
	if _, err := c.Subscribe(ctx, broker.Subscription{Group: unique("ours"), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		ours <- d
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	consumer, err := rmq.NewPushConsumer(rmqconsumer.WithNameServer(testbroker.NameServers(t)), rmqconsumer.WithGroupName(unique("theirs")),
		rmqconsumer.WithInstance(unique("interop")), rmqconsumer.WithConsumeFromWhere(rmqconsumer.ConsumeFromFirstOffset))
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Subscribe(topic, rmqconsumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (rmqconsumer.ConsumeResult, error) {
		for _, m := range ms {
			theirs <- m
		}
		return rmqconsumer.ConsumeSuccess, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	defer consumer.Shutdown()
	p, err := rmq.NewProducer(producer.WithNameServer(testbroker.NameServers(t)), producer.WithGroupName(unique("p")), producer.WithInstanceName(unique("interop")))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Shutdown()

	m := primitive.NewMessage(topic, []byte("theirs")).WithTag("t").WithKeys([]string{"a", "b"}).WithShardingKey("s")
	m.WithProperty("own", "1")
	sent, err := p.SendSync(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	d := <-ours
	if string(d.Body) != "theirs" || d.Tag != "t" || len(d.Keys) != 2 || d.ShardingKey != "s" || d.ID != sent.MsgID || d.Properties["own"] != "1" || len(d.Properties) != 1 {
		t.Errorf("got %+v", d)
	}
	<-theirs // its own

	if _, err := c.Send(ctx, broker.Message{Topic: topic, Tag: "u", Keys: []string{"k"}, Properties: map[string]string{"own": "2"}, Body: []byte("ours")}); err != nil {
		t.Fatal(err)
	}
	got := <-theirs
	if string(got.Body) != "ours" || got.GetTags() != "u" || got.GetKeys() != "k" || got.GetProperty("own") != "2" {
		t.Errorf("got %v", got)
	}
}

// TestNamespacesAreSeparate: two namespaces on one broker don't see each other, and callers don't see the namespace.
func TestNamespacesAreSeparate(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, 90*time.Second)
	name, group := unique("topic"), unique("group")
	type side struct {
		client *rocketmq.Client
		got    chan broker.Delivery
	}
	var sides []side
	for _, namespace := range []string{unique("one"), unique("two")} {
		s := side{open(t, func(c *rocketmq.Config) { c.Namespace = namespace }), make(chan broker.Delivery, 10)}
		createTopic(t, s.client, broker.Topic{Name: name})
		if _, err := s.client.Subscribe(ctx, broker.Subscription{Group: group, Topics: []string{name}}, func(_ context.Context, d broker.Delivery) error {
			s.got <- d
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		sides = append(sides, s)
	}
	checked := make(chan broker.Check, 1)
	tr, err := sides[0].client.OpenTransactionProducer(ctx, group, func(_ context.Context, ck broker.Check) (broker.Decision, func(error)) {
		checked <- ck
		return broker.Commit, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Prepare(ctx, broker.Message{Topic: name, Body: []byte("half")}); err != nil {
		t.Fatal(err)
	}
	timer, err := sides[0].client.Schedule(ctx, broker.Message{Topic: name, Body: []byte("cancelled")}, time.Now().Add(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := sides[0].client.Cancel(ctx, timer); err != nil {
		t.Fatal(err)
	}
	if d := <-sides[0].got; string(d.Body) != "half" || d.Topic != name {
		t.Errorf("got %+v", d)
	}
	if ck := <-checked; ck.Message.Topic != name {
		t.Errorf("check names topic %s, want %s", ck.Message.Topic, name)
	}
	if _, err := sides[1].client.Send(ctx, broker.Message{Topic: name, Body: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	if d := <-sides[1].got; string(d.Body) != "other" {
		t.Errorf("the other namespace got %+v", d)
	}
}
