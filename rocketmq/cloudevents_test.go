package rocketmq_test

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	rmq "github.com/apache/rocketmq-client-go/v2"
	rmqconsumer "github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// shipped is the event of these tests.
type shipped struct {
	Order  string `json:"order"`
	Parcel int    `json:"parcel"`
	topic  string
}

// shippedTopic is the topic of the zero value, which handlers.On uses; a new one for each run.
var shippedTopic = unique("shipped")

func (s shipped) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{
		Topic: cmp.Or(s.topic, shippedTopic), Type: "order.shipped", Subject: s.Order, Headers: map[string]string{"tenant": "acme"},
	}
}

// TestPlainConsumerReadsCloudEvents: what an outbox publishes, on each path, is a CloudEvent for a consumer that uses rocketmq-client-go
// alone.
func TestPlainConsumerReadsCloudEvents(t *testing.T) {
	usesClient(t)
	t.Parallel()
	for name, path := range map[string]outbox.Path{"half message": outbox.HalfMessages, "relay": outbox.Relay} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := deadline(t, 90*time.Second)
			c := open(t)
			topic, source := unique("plain"), unique("parcels")
			createTopic(t, c, broker.Topic{Name: topic})
			theirs := plainConsumer(t, topic)
			pool, schema := testdb.Partitioned(t)
			box, err := outbox.New(outbox.Config{Pool: pool, Broker: c, Source: source, Schema: schema, Path: path})
			if err != nil {
				t.Fatal(err)
			}
			if err := box.Start(ctx); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := box.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			})
			begin := time.Now()
			if err := box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
				return tx.Publish(ctx, shipped{"o-1", 1, topic})
			}); err != nil {
				t.Fatal(err)
			}
			m := receive(ctx, t, theirs)
			var sequence string
			var id uuid.UUID
			if err := pool.QueryRow(ctx, "SELECT id, sequence::text FROM outbox").Scan(&id, &sequence); err != nil {
				t.Fatal(err)
			}
			for property, want := range map[string]string{
				"CE_specversion": "1.0", "CE_id": id.String(), "CE_type": "order.shipped", "CE_source": source, "CE_subject": "o-1",
				"CE_contenttype": "application/json", "CE_sequence": sequence, "CE_partitionkey": "o-1", "tenant": "acme",
				primitive.PropertyTags: "order.shipped", primitive.PropertyShardingKey: "o-1",
			} {
				if got := m.GetProperty(property); got != want {
					t.Errorf("%s is %q, want %q", property, got, want)
				}
			}
			if keys := strings.Fields(m.GetKeys()); len(keys) != 2 || keys[0] != id.String() || keys[1] != "o-1" {
				t.Errorf("KEYS are %q", keys)
			}
			at, err := time.Parse(time.RFC3339Nano, m.GetProperty("CE_time"))
			if err != nil || at.Before(begin.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
				t.Errorf("CE_time is %q (%v)", m.GetProperty("CE_time"), err)
			}
			var got shipped
			if err := json.Unmarshal(m.Body, &got); err != nil || got != (shipped{Order: "o-1", Parcel: 1}) {
				t.Errorf("body is %q (%v)", m.Body, err)
			}
		})
	}
}

// TestPlainProducerReachesHandlers: a handler handles what rocketmq-client-go alone has sent, once for each unique key, also without a tag.
func TestPlainProducerReachesHandlers(t *testing.T) {
	usesClient(t)
	t.Parallel()
	ctx := deadline(t, 90*time.Second)
	c := open(t)
	createTopic(t, c, broker.Topic{Name: shippedTopic})
	pool, schema := testdb.Partitioned(t)
	if _, err := pool.Exec(ctx, "CREATE TABLE effect (parcel int)"); err != nil {
		t.Fatal(err)
	}
	box, err := outbox.New(outbox.Config{Pool: pool, Broker: c, Source: "test", Schema: schema, Group: unique("box")})
	if err != nil {
		t.Fatal(err)
	}
	duplicates := make(chan handlers.EventInfo, 10)
	router, err := handlers.New(handlers.Config{
		Pool: pool, Source: "test", Transactor: box, Broker: c, Schema: schema, GroupPrefix: unique("g") + "-",
		Listener: &handlers.Listener{Duplicate: func(i handlers.EventInfo) { duplicates <- i }},
	})
	if err != nil {
		t.Fatal(err)
	}
	handlers.On(router, "parcels", func(ctx context.Context, tx rocketflow.Tx, s shipped) error {
		e, _ := handlers.EventFrom(ctx)
		if e.Subject != "o-1" || e.Ordered() || e.Headers["own"] != "1" {
			t.Errorf("event is %+v", e)
		}
		_, err := tx.Exec(ctx, "INSERT INTO effect VALUES ($1)", s.Parcel)
		return err
	})
	router.Handle("parcels", shippedTopic, handlers.Untagged, func(ctx context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
		s, err := handlers.Decode[shipped](e)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO effect VALUES ($1)", s.Parcel)
		return err
	})
	for _, part := range []interface {
		Start(context.Context) error
		Stop(context.Context) error
	}{box, router} {
		if err := part.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := part.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}

	p, err := rmq.NewProducer(producer.WithNameServer(testbroker.NameServers(t)), producer.WithGroupName(unique("p")), producer.WithInstanceName(unique("plain")))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Shutdown()
	for _, send := range []struct{ key, tag, body string }{
		{"", "order.shipped", `{"order":"o-1","parcel":1}`},
		{"", "", `{"order":"o-1","parcel":3}`},
		{"plain-unique-key", "order.shipped", `{"order":"o-1","parcel":2}`},
		{"plain-unique-key", "order.shipped", `{"order":"o-1","parcel":2}`},
	} {
		m := primitive.NewMessage(shippedTopic, []byte(send.body)).WithShardingKey("o-1")
		m.WithProperty("own", "1")
		if send.tag != "" {
			m.WithTag(send.tag)
		}
		if send.key != "" {
			m.WithProperty(primitive.PropertyUniqueClientMessageIdKeyIndex, send.key)
		}
		if _, err := p.SendSync(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-duplicates:
	case <-ctx.Done():
		t.Fatal("the second message with the same unique key did not come, or was taken for another")
	}
	var effects, parcels int
	poll.Succeeds(t, 30*time.Second, func() error {
		return pool.QueryRow(ctx, "SELECT count(*), count(DISTINCT parcel) FROM effect HAVING count(DISTINCT parcel) = 3").Scan(&effects, &parcels)
	})
	if effects != parcels {
		t.Errorf("%d effects of %d parcels", effects, parcels)
	}
}

// plainConsumer reads a topic with rocketmq-client-go alone.
func plainConsumer(t *testing.T, topic string) <-chan *primitive.MessageExt {
	t.Helper()
	messages := make(chan *primitive.MessageExt, 10)
	consumer, err := rmq.NewPushConsumer(rmqconsumer.WithNameServer(testbroker.NameServers(t)), rmqconsumer.WithGroupName(unique("theirs")),
		rmqconsumer.WithInstance(unique("plain")), rmqconsumer.WithConsumeFromWhere(rmqconsumer.ConsumeFromFirstOffset))
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Subscribe(topic, rmqconsumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (rmqconsumer.ConsumeResult, error) {
		for _, m := range ms {
			messages <- m
		}
		return rmqconsumer.ConsumeSuccess, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = consumer.Shutdown() })
	return messages
}

func receive(ctx context.Context, t *testing.T, from <-chan *primitive.MessageExt) *primitive.MessageExt {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-ctx.Done():
		t.Fatal("no message came")
		return nil
	}
}
