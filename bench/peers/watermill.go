package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/message"
	rmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/bench/frame"
)

// Settings of the forwarder. The default poll interval of a second would dominate the latency; with a shorter one than this,
// idle queries cost more than they save. The batch is ten times the default, so that the position is stored less often.
const (
	forwarderPoll  = 5 * time.Millisecond
	forwarderBatch = 1000
)

// watermillForwarder inserts a message into Watermill's table in the business transaction. A forwarder in the same process
// reads the table and sends the messages to RocketMQ one by one, in order.
func watermillForwarder(ctx context.Context, b *frame.Bed, watch *frame.Stopwatch) (*frame.Way, error) {
	topic, err := b.NewTopic(ctx)
	if err != nil {
		return nil, err
	}
	p, err := rmq.NewProducer(producer.WithNameServer(primitive.NamesrvAddr(b.NameServers)), producer.WithGroupName(topic),
		producer.WithInstanceName(uuid.NewString()), producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	consumer, err := frame.PushConsumer(b, topic, watch)
	if err != nil {
		return nil, err
	}
	schema := watermillsql.DefaultPostgreSQLSchema{SubscribeBatchSize: forwarderBatch}
	table := fmt.Sprintf("forward_%d", time.Now().UnixNano())
	subscriber, err := watermillsql.NewSubscriber(watermillsql.BeginnerFromPgx(b.Pool), watermillsql.SubscriberConfig{
		SchemaAdapter: schema, OffsetsAdapter: watermillsql.DefaultPostgreSQLOffsetsAdapter{},
		PollInterval: forwarderPoll, InitializeSchema: true,
	}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	if err := subscriber.SubscribeInitialize(table); err != nil {
		return nil, err
	}
	daemon, err := forwarder.NewForwarder(subscriber, &rocketmqPublisher{producer: p}, watermill.NopLogger{}, forwarder.Config{ForwarderTopic: table})
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() { ended <- daemon.Run(running) }()
	select {
	case <-daemon.Running():
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("forwarder: %w", err)
	}
	return &frame.Way{
		Publish: func(ctx context.Context, account string, cents int64) error {
			body, err := json.Marshal(frame.Credited{Account: account, Cents: cents, Note: frame.Note})
			if err != nil {
				return err
			}
			m := message.NewMessage(watermill.NewUUID(), body)
			m.SetContext(ctx)
			m.Metadata.Set("account", account)
			err = pgx.BeginFunc(ctx, b.Pool, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, frame.InsertBusiness, account, cents); err != nil {
					return err
				}
				publisher, err := watermillsql.NewPublisher(watermillsql.TxFromPgx(tx), watermillsql.PublisherConfig{SchemaAdapter: schema}, watermill.NopLogger{})
				if err != nil {
					return err
				}
				return forwarder.NewPublisher(publisher, forwarder.PublisherConfig{ForwarderTopic: table}).Publish(topic, m)
			})
			if err != nil {
				return err
			}
			watch.Commit(m.UUID)
			return nil
		},
		Close: func() {
			_ = daemon.Close()
			_ = subscriber.Close()
			cancel()
			_ = <-ended
			_ = consumer.Shutdown()
			_ = p.Shutdown()
		},
	}, nil
}

// rocketmqPublisher is a Watermill publisher for RocketMQ, which Watermill has none for.
type rocketmqPublisher struct{ producer rmq.Producer }

func (p *rocketmqPublisher) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		out := primitive.NewMessage(topic, m.Payload)
		out.WithKeys([]string{m.UUID}).WithTag("account.credited").WithShardingKey(m.Metadata.Get("account"))
		if _, err := p.producer.SendSync(m.Context(), out); err != nil {
			return err
		}
	}
	return nil
}

func (p *rocketmqPublisher) Close() error { return nil }
