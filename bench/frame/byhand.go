package frame

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	rmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// byHand publishes as the documentation of rocketmq-client-go suggests: with a transaction producer whose listener runs the
// local transaction. It has no sequence and no row for an event, and may lose events.
func byHand(ctx context.Context, b *Bed, watch *Stopwatch) (*Way, error) {
	topic, err := b.NewTopic(ctx)
	if err != nil {
		return nil, err
	}
	servers := primitive.NamesrvAddr(b.NameServers)
	local := &localTransaction{bed: b, watch: watch}
	p, err := rmq.NewTransactionProducer(local, producer.WithNameServer(servers), producer.WithGroupName(topic), producer.WithInstanceName(uuid.NewString()))
	if err != nil {
		return nil, err
	}
	if err := p.Start(); err != nil {
		return nil, err
	}
	c, err := PushConsumer(b, topic, watch)
	if err != nil {
		_ = p.Shutdown()
		return nil, err
	}
	return &Way{
		Publish: func(ctx context.Context, account string, cents int64) error {
			body, err := json.Marshal(Credited{Account: account, Cents: cents, Note: Note})
			if err != nil {
				return err
			}
			m := primitive.NewMessage(topic, body)
			key := uuid.NewString()
			m.WithKeys([]string{key}).WithTag("account.credited").WithShardingKey(account)
			local.pending.Store(key, insertion{account, cents})
			r, err := p.SendMessageInTransaction(ctx, m)
			if err != nil {
				return err
			}
			if r.State != primitive.CommitMessageState {
				return fmt.Errorf("local transaction: state %v", r.State)
			}
			return nil
		},
		Close: func() {
			_ = c.Shutdown()
			_ = p.Shutdown()
		},
	}, nil
}

type insertion struct {
	account string
	cents   int64
}

type localTransaction struct {
	bed     *Bed
	watch   *Stopwatch
	pending sync.Map // by key
}

func (l *localTransaction) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	ctx := context.Background()
	v, _ := l.pending.LoadAndDelete(m.GetKeys())
	row := v.(insertion)
	err := pgx.BeginFunc(ctx, l.bed.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, InsertBusiness, row.account, row.cents)
		return err
	})
	if err != nil {
		return primitive.RollbackMessageState
	}
	l.watch.Commit(m.GetKeys())
	return primitive.CommitMessageState
}

func (l *localTransaction) CheckLocalTransaction(*primitive.MessageExt) primitive.LocalTransactionState {
	return primitive.CommitMessageState
}

// PushConsumer starts a consumer as the documentation of rocketmq-client-go suggests, on a topic whose messages have one key.
func PushConsumer(b *Bed, topic string, watch *Stopwatch) (rmq.PushConsumer, error) {
	c, err := rmq.NewPushConsumer(consumer.WithNameServer(primitive.NamesrvAddr(b.NameServers)), consumer.WithGroupName(topic), consumer.WithInstance(uuid.NewString()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	if err != nil {
		return nil, err
	}
	err = c.Subscribe(topic, consumer.MessageSelector{}, func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			watch.Arrive(m.GetKeys())
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return nil, err
	}
	return c, c.Start()
}
