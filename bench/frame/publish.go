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

// Names of the rows that others are compared with.
const (
	rowInsertAlone = "insert alone"
	rowByHand      = "by hand"
)

// ownRows are the insert alone, which is the upper limit, the ways of rocketflow, and the one by hand.
func ownRows() []Row {
	return []Row{
		{rowInsertAlone, insertAlone},
		{"rows alone", rowsAlone},
		{"half-message path", Outbox(outbox.Config{Path: outbox.HalfMessages, RelayBuffer: 1 << 20})},
		{"relay path", Outbox(outbox.Config{Path: outbox.Relay, RelayBuffer: 1 << 20})},
		{"path by load", Outbox(outbox.Config{})}, // the default configuration
		{rowByHand, byHand},
	}
}

// InsertBusiness is the statement of every business transaction. Its parameters are an account and cents.
const InsertBusiness = "INSERT INTO business (account, cents) VALUES ($1, $2)"

// Note fills the body of every event up to about 300 bytes.
var Note = strings.Repeat("x", 240)

// Credited is the body of every event.
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

// rowsAlone is everything that rocketflow does in PostgreSQL, without a broker: insert, sequence, row, acknowledgement.
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

// nowhere is a broker that accepts every message at once and delivers none.
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

// Outbox opens rocketflow with a configuration of its outbox.
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

// openedOutbox is a started outbox with a topic of its own and a consumer of it.
type openedOutbox struct {
	topic string
	box   *outbox.Outbox
	close func()
}

// openOutbox starts an outbox and a consumer, which calls arrive with the id of each event.
func openOutbox(ctx context.Context, b *Bed, c outbox.Config, arrive func(id string)) (*openedOutbox, error) {
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
	return &openedOutbox{topic, box, func() {
		ctx := context.WithoutCancel(ctx)
		_ = consumer.Stop(ctx)
		_ = box.Stop(ctx)
	}}, nil
}

// within runs the business transaction and publishes its event.
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
