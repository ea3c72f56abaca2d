package frame

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
)

// Rows of the table that the other rows are compared with.
const (
	rowInsertAlone = "insert alone"
	rowByHand      = "by hand"
)

// ownRows returns the upper bound, rocketflow with each path, and the same written by hand.
func ownRows() []Row {
	return []Row{
		{rowInsertAlone, insertAlone},
		{"rows alone", rowsAlone},
		{"half messages", Outbox(outbox.Config{Path: outbox.HalfMessages, RelayBuffer: 1 << 20})},
		{"relay", Outbox(outbox.Config{Path: outbox.Relay, RelayBuffer: 1 << 20})},
		{"automatic path", Outbox(outbox.Config{})}, // the default configuration
		{rowByHand, byHand},
	}
}

// InsertBusiness is the business transaction of every row; its parameters are an account and cents.
const InsertBusiness = "INSERT INTO business (account, cents) VALUES ($1, $2)"

// Note makes the body of every row's event about 300 bytes.
var Note = strings.Repeat("x", 240)

// Credited is the body of every row's event.
type Credited struct {
	topic   string
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
	Note    string `json:"note"`
}

// EventMeta implements rocketflow.Payload.
func (c Credited) EventMeta() rocketflow.Meta {
	return rocketflow.Meta{Topic: c.topic, Type: "account.credited", Subject: c.Account}
}

func insertAlone(_ context.Context, b *Bed, _ *Stopwatch) (*Way, error) {
	return &Way{Silent: true, Close: func() {}, Publish: func(ctx context.Context, account string, cents int64) error {
		return pgx.BeginFunc(ctx, b.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, InsertBusiness, account, cents)
			return err
		})
	}}, nil
}

// rowsAlone measures everything that happens in Postgres, with a broker that accepts everything: insert, sequence, row,
// acknowledgement.
func rowsAlone(ctx context.Context, b *Bed, _ *Stopwatch) (*Way, error) {
	box, err := outbox.New(outbox.Config{Pool: b.Pool, Broker: noBroker{}, Source: "bench", Schema: b.Schema, Path: outbox.Relay, RelayBuffer: 1 << 20})
	if err != nil {
		return nil, err
	}
	if err := box.Start(ctx); err != nil {
		return nil, err
	}
	return &Way{
		Silent:  true,
		Publish: within(box, "no-topic"),
		Close:   func() { _ = box.Stop(context.WithoutCancel(ctx)) },
	}, nil
}

// noBroker accepts every message at once and delivers none.
type noBroker struct{ outbox.Broker }

func (noBroker) Send(context.Context, broker.Message) (broker.Receipt, error) {
	return broker.Receipt{}, nil
}

func (noBroker) SendGroup(context.Context, []broker.Message) []error { return nil }

func (noBroker) Shard(string, string) int { return 0 }

func (noBroker) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (noBroker) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return noTransactionProducer{}, nil
}

type noTransactionProducer struct{ broker.TransactionProducer }

func (noTransactionProducer) Close(context.Context) error { return nil }

// Outbox returns a way to publish with an outbox of this configuration.
func Outbox(config outbox.Config) func(context.Context, *Bed, *Stopwatch) (*Way, error) {
	return func(ctx context.Context, b *Bed, watch *Stopwatch) (*Way, error) {
		c := config
		c.Listener = &outbox.Listener{Committed: func(events []rocketflow.Event) { watch.Commit(events[0].ID.String()) }}
		g, err := openOutbox(ctx, b, c, watch.Arrive)
		if err != nil {
			return nil, err
		}
		return &Way{Publish: within(g.box, g.topic), Close: g.close}, nil
	}
}

// outboxUnderTest is an outbox with a topic of its own and a consumer of that topic.
type outboxUnderTest struct {
	topic string
	box   *outbox.Outbox
	close func()
}

// openOutbox starts an outbox and a consumer, which calls arrive with the id of each event.
func openOutbox(ctx context.Context, b *Bed, c outbox.Config, arrive func(id string)) (*outboxUnderTest, error) {
	topic, err := b.NewTopic(ctx)
	if err != nil {
		return nil, err
	}
	c.Pool, c.Broker, c.Source, c.Group, c.Schema = b.Pool, b.Client, "bench", topic, b.Schema
	box, err := outbox.New(c)
	if err != nil {
		return nil, err
	}
	if err := box.Start(ctx); err != nil {
		return nil, err
	}
	consumer, err := b.Client.Subscribe(ctx, broker.Subscription{Group: topic, Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
		e, err := wire.EventOf(d)
		arrive(e.ID.String())
		return err
	})
	if err != nil {
		_ = box.Stop(ctx)
		return nil, err
	}
	return &outboxUnderTest{topic, box, func() {
		ctx := context.WithoutCancel(ctx)
		_ = consumer.Stop(ctx)
		_ = box.Stop(ctx)
	}}, nil
}

// within returns the business transaction of the rows that publish with an outbox.
func within(box *outbox.Outbox, topic string) func(context.Context, string, int64) error {
	return func(ctx context.Context, account string, cents int64) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, InsertBusiness, account, cents); err != nil {
				return err
			}
			return tx.Publish(ctx, Credited{topic: topic, Account: account, Cents: cents, Note: Note})
		})
	}
}
