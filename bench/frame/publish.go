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

// Rows that others are compared with.
const (
	rowInsertAlone = "insert alone"
	rowByHand      = "by hand"
)

// ownRows are the ceiling, rocketflow's ways, and the one by hand.
func ownRows() []Row {
	return []Row{
		{rowInsertAlone, insertAlone},
		{"rows alone", rowsAlone},
		{"gear A", Gears(outbox.Config{Path: outbox.HalfMessages, RelayBuffer: 1 << 20})},
		{"gear B", Gears(outbox.Config{Path: outbox.Relay, RelayBuffer: 1 << 20})},
		{"gears by load", Gears(outbox.Config{})}, // as they ship
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

// rowsAlone is all that happens in Postgres, with a broker that is not there: insert, sequence, row, ack.
func rowsAlone(ctx context.Context, b *Bed, _ *Stopwatch) (*Way, error) {
	box, err := outbox.New(outbox.Config{Pool: b.Pool, Broker: nowhere{}, Source: "bench", Schema: b.Schema, Path: outbox.Relay, RelayBuffer: 1 << 20})
	if err != nil {
		return nil, err
	}
	if err := box.Start(ctx); err != nil {
		return nil, err
	}
	return &Way{
		Silent:  true,
		Publish: within(box, "nowhere"),
		Close:   func() { _ = box.Stop(context.WithoutCancel(ctx)) },
	}, nil
}

// nowhere takes every message at once.
type nowhere struct{ outbox.Broker }

func (nowhere) Send(context.Context, broker.Message) (broker.Receipt, error) {
	return broker.Receipt{}, nil
}

func (nowhere) SendGroup(context.Context, []broker.Message) []error { return nil }

func (nowhere) Shard(string, string) int { return 0 }

func (nowhere) Subscribe(context.Context, broker.Subscription, broker.Handler) (broker.Consumer, error) {
	return nil, broker.ErrTopicNotFound
}

func (nowhere) OpenTransactionProducer(context.Context, string, broker.Checker) (broker.TransactionProducer, error) {
	return nowhereTransactor{}, nil
}

type nowhereTransactor struct{ broker.TransactionProducer }

func (nowhereTransactor) Close(context.Context) error { return nil }

// Gears is rocketflow with this configuration.
func Gears(config outbox.Config) func(context.Context, *Bed, *Stopwatch) (*Way, error) {
	return func(ctx context.Context, b *Bed, watch *Stopwatch) (*Way, error) {
		c := config
		c.Listener = &outbox.Listener{Committed: func(events []rocketflow.Event) { watch.Commit(events[0].ID.String()) }}
		g, err := openGears(ctx, b, c, watch.Arrive)
		if err != nil {
			return nil, err
		}
		return &Way{Publish: within(g.box, g.topic), Close: g.close}, nil
	}
}

// gears is an outbox, a topic of its own, and a consumer of that.
type gears struct {
	topic string
	box   *outbox.Outbox
	close func()
}

// openGears calls arrive with the id of each event that comes.
func openGears(ctx context.Context, b *Bed, c outbox.Config, arrive func(id string)) (*gears, error) {
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
	return &gears{topic, box, func() {
		ctx := context.WithoutCancel(ctx)
		_ = consumer.Stop(ctx)
		_ = box.Stop(ctx)
	}}, nil
}

// within is the transaction of all gears.
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
