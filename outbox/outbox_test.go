package outbox_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/test/testdb"
)

func TestPublishedIfCommitted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	for i := range 5 {
		if err := b.credit(ctx, "a", int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	events := b.broker.events()
	if len(events) != 5 {
		t.Fatalf("%d events delivered when Within returned, want 5", len(events))
	}
	chain(t, events)
	e := events[0]
	if e.Source != "bank" || e.Type != "account.credited" || e.Topic != "accounts" || e.Subject != "a" || e.Database == "" || e.Time.IsZero() {
		t.Errorf("event lacks something: %+v", e)
	}
	if got, err := wire.DecodeBody[credited](e); err != nil || got.Account != "a" {
		t.Errorf("decoded %+v, %v", got, err)
	}
	poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 5 })
}

func TestNotPublishedIfRolledBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	oops := errors.New("oops")
	publish := func(ctx context.Context, tx rocketflow.Tx) error { return tx.Publish(ctx, credited{"a", 1}) }
	deferred := "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
	if _, err := b.pool.Exec(ctx, deferred); err != nil {
		t.Fatal(err)
	}
	for name, fn := range map[string]func(ctx context.Context, tx rocketflow.Tx) error{
		"error": func(ctx context.Context, tx rocketflow.Tx) error { return errors.Join(publish(ctx, tx), oops) },
		"panic": func(ctx context.Context, tx rocketflow.Tx) error { _ = publish(ctx, tx); panic(oops) },
		"failed statement": func(ctx context.Context, tx rocketflow.Tx) error {
			_ = publish(ctx, tx)
			_, _ = tx.Exec(ctx, "SELECT 1/0")
			return nil
		},
		"refused commit": func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO child VALUES (1)"); err != nil {
				return err
			}
			return publish(ctx, tx)
		},
		"rolled back inside": func(ctx context.Context, tx rocketflow.Tx) error {
			return errors.Join(publish(ctx, tx), tx.Rollback(ctx), oops)
		},
	} {
		func() {
			defer func() { _ = recover() }()
			if err := b.outbox.Within(ctx, fn); err == nil {
				t.Errorf("%s: no error", name)
			}
		}()
		if events := b.broker.events(); len(events) > 0 {
			t.Fatalf("%s: delivered %v", name, events)
		}
		poll.Until(t, name+": half message rolled back", func() bool { return b.broker.open() == 0 })
	}
	if n := b.count(t, "outbox"); n != 0 {
		t.Errorf("%d rows in the outbox, want none", n)
	}
}

func TestSequencesFollowCommits(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	const callers, each = 8, 25
	var group errgroup.Group
	for i := range callers {
		group.Go(func() error {
			for j := range each {
				err := testdb.Retry(func() error {
					return b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
						// Two streams that all callers use, in both orders, and one event without order.
						first, second := "x", "y"
						if i%2 == 0 {
							first, second = second, first
						}
						return tx.Publish(ctx, credited{first, 1}, credited{second, int64(j)}, credited{first, 2}, credited{"", 0})
					})
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all events", func() bool { return len(b.broker.events()) >= callers*each*4 })
	events := b.broker.events()
	if len(events) != callers*each*4 {
		t.Fatalf("%d events, want %d", len(events), callers*each*4)
	}
	slices.SortFunc(events, func(a, b rocketflow.Event) int { return int(a.Sequence - b.Sequence) })
	var ordered []rocketflow.Event
	for _, e := range events {
		if e.Ordered() != (e.Subject != "") {
			t.Errorf("event of %q: ordered is %v", e.Subject, e.Ordered())
		}
		if e.Ordered() {
			ordered = append(ordered, e)
		}
	}
	chain(t, ordered)
}

func TestSavepointsTakeTheirEventsBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, nil)
	var ran []string
	err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		if err := tx.Publish(ctx, credited{"a", 1}); err != nil {
			return err
		}
		for _, keep := range []bool{false, true} {
			inner, err := tx.Begin(ctx)
			if err != nil {
				return err
			}
			sub := inner.(rocketflow.Tx)
			if err := sub.Publish(ctx, credited{"a", 2}, credited{"b", 3}); err != nil {
				return err
			}
			sub.AfterCommit(func() { ran = append(ran, fmt.Sprint(keep)) })
			if !keep {
				err = sub.Rollback(ctx)
			} else {
				err = sub.Commit(ctx)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.broker.events()); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
	if !slices.Equal(ran, []string{"true"}) {
		t.Errorf("after the commit ran %v", ran)
	}
}

func TestJoinedTransactionsPublish(t *testing.T) {
	t.Parallel()
	for _, commitInner := range []bool{false, true} {
		t.Run(fmt.Sprintf("inner %v", commitInner), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			b := setup(t, nil)
			inner, err := b.pool.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			joined := b.outbox.Join(inner)
			if err := joined.Publish(ctx, credited{"a", 1}); err != nil {
				t.Fatal(err)
			}
			if err := joined.Publish(ctx, credited{"a", 2}); err != nil {
				t.Fatal(err)
			}
			var ending pgx.Tx = joined
			if commitInner {
				ending = inner // the caller forgot; the sweep finds the events
			}
			if err := ending.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "events", func() bool { return len(b.broker.events()) == 2 })
			chain(t, b.broker.events())
		})
	}
}

func TestBrokerNeverFailsATransaction(t *testing.T) {
	t.Parallel()
	away := fmt.Errorf("%w: connection refused", broker.ErrUnavailable)
	for name, fault := range map[string]func(*logicBroker){
		"prepare fails":   func(b *logicBroker) { b.fail["prepare"] = away },
		"prepare hangs":   func(b *logicBroker) { b.hang["prepare"] = true },
		"topic not found": func(b *logicBroker) { b.fail["prepare"] = broker.ErrTopicNotFound },
		"end fails":       func(b *logicBroker) { b.fail["commit"] = away },
		"all fails":       func(b *logicBroker) { b.fail["prepare"], b.fail["send"] = away, away },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			var failed atomic.Int64 // sends of the relay, but for what the sweep gave it
			b := setup(t, func(c *outbox.Config) {
				c.Listener = &outbox.Listener{Relayed: func(i outbox.RelayedInfo) {
					if i.Err != nil && !i.Swept {
						failed.Add(1)
					}
				}}
			})
			b.broker.mu.Lock()
			fault(b.broker)
			b.broker.mu.Unlock()
			for range 3 {
				if err := b.credit(ctx, "a", 1); err != nil {
					t.Fatalf("the transaction failed: %v", err)
				}
			}
			if name == "all fails" {
				poll.Until(t, "backlog", func() bool { n, _, err := b.outbox.Backlog(ctx); return err == nil && n == 3 && failed.Load() == 3 })
				b.broker.set("send", nil)
			}
			poll.Until(t, "events", func() bool { return len(b.broker.events()) == 3 })
			events := b.broker.events()
			if name == "all fails" { // and what failed a moment before the broker came back is overtaken
				slices.SortStableFunc(events, func(x, y rocketflow.Event) int { return cmp.Compare(x.Sequence, y.Sequence) })
			}
			chain(t, events)
			poll.Until(t, "acks", func() bool { return b.count(t, "outbox_ack") == 3 })
		})
	}
}

func TestTooLargeEventFailsTheTransaction(t *testing.T) {
	t.Parallel()
	var o outcomes
	b := setup(t, func(c *outbox.Config) { c.Listener = o.listener() })
	b.broker.set("prepare", broker.ErrTooLarge)
	err := b.credit(context.Background(), "a", 1)
	if !errors.Is(err, broker.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	if n := b.count(t, "account"); n != 0 {
		t.Error("the transaction committed")
	}
	if o.rolledBack.Load() != 1 || o.unknown.Load() != 0 || o.committed.Load() != 0 {
		t.Errorf("reported: %d rolled back, %d unknown, %d committed; want 1, 0, 0", o.rolledBack.Load(), o.unknown.Load(), o.committed.Load())
	}
}

type refused struct {
	meta rocketflow.Meta
	body any
}

func (r refused) EventMeta() rocketflow.Meta { return r.meta }
func (r refused) MarshalJSON() ([]byte, error) {
	return []byte(fmt.Sprintf("%q", fmt.Sprint(r.body))), nil
}

func TestInvalidEventsAreRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.Topics = []string{"accounts"}; c.MaxBody = 1000 })
	good := rocketflow.Meta{Topic: "accounts", Type: "t", Subject: "s"}
	with := func(edit func(*rocketflow.Meta)) rocketflow.Payload {
		m := good
		edit(&m)
		return refused{meta: m}
	}
	for field, p := range map[string]rocketflow.Payload{
		"topic: missing":                with(func(m *rocketflow.Meta) { m.Topic = "" }),
		"topic: \"other\" is not among": with(func(m *rocketflow.Meta) { m.Topic = "other" }),
		"type: missing":                 with(func(m *rocketflow.Meta) { m.Type = "" }),
		"type: \"a b\"":                 with(func(m *rocketflow.Meta) { m.Type = "a b" }),
		"subject":                       with(func(m *rocketflow.Meta) { m.Subject = "a\x01b" }),
		"property \"TRAN_MSG\"":         with(func(m *rocketflow.Meta) { m.Headers = map[string]string{"TRAN_MSG": "true"} }),
		"property \"CE_id\"":            with(func(m *rocketflow.Meta) { m.Headers = map[string]string{"CE_id": "1"} }),
		"headers: value of \"k\"":       with(func(m *rocketflow.Meta) { m.Headers = map[string]string{"k": "\x02"} }),
		"headers: 20":                   with(func(m *rocketflow.Meta) { m.Headers = map[string]string{"k": strings.Repeat("v", 20000)} }),
		"content type: \"json\"":        rocketflow.Event{Topic: "accounts", Type: "t", Subject: "s", ContentType: "json"},
		"data schema: \"v1\"":           with(func(m *rocketflow.Meta) { m.DataSchema = "v1" }),
		"extensions: \"A\"":             with(func(m *rocketflow.Meta) { m.Extensions = map[string]string{"A": "1"} }),
		"body: 2002 bytes":              refused{good, strings.Repeat("x", 2000)},
	} {
		err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			err := tx.Publish(ctx, p)
			if err == nil {
				t.Errorf("%s: accepted", field)
			}
			// The transaction remains usable.
			if e := tx.Publish(ctx, credited{"a", 1}); e != nil {
				t.Errorf("%s: then %v", field, e)
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("want an error with %q, got %v", field, err)
		}
	}
	if n := len(b.broker.events()); n != 0 {
		t.Errorf("%d events delivered", n)
	}
}

func TestConfigNamesTheField(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Schema(t)
	good := outbox.Config{Pool: pool, Broker: newLogicBroker(), Source: "s", Schema: schema, HalfTimeout: time.Second}
	for field, edit := range map[string]func(*outbox.Config){
		"Pool":        func(c *outbox.Config) { c.Pool = nil },
		"Broker":      func(c *outbox.Config) { c.Broker = nil },
		"Source":      func(c *outbox.Config) { c.Source = "" },
		"HalfTimeout": func(c *outbox.Config) { c.HalfTimeout = -1 },
		"MaxBody":     func(c *outbox.Config) { c.MaxBody = -1 },
		"SweepGrace":  func(c *outbox.Config) { c.SweepGrace = c.HalfTimeout },
		"Retention":   func(c *outbox.Config) { c.Retention = time.Minute },
	} {
		config := good
		edit(&config)
		_, err := outbox.New(config)
		var fieldErr *rocketflow.FieldError
		if !errors.As(err, &fieldErr) || fieldErr.Field != "outbox.Config."+field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	o, err := outbox.New(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Start(context.Background()); !errors.Is(err, rocketflow.ErrNotMigrated) {
		t.Errorf("start without tables: got %v, want ErrNotMigrated", err)
	}
	if err := o.Within(context.Background(), nil); !errors.Is(err, outbox.ErrNotStarted) {
		t.Errorf("within before start: %v", err)
	}
}

func TestStartAndStopMayBeRepeated(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := setup(t, func(c *outbox.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	for range 3 {
		if err := b.outbox.Start(ctx); err != nil { // a second start does nothing
			t.Fatal(err)
		}
		if err := b.credit(ctx, "a", 1); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.outbox.Stop(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.credit(ctx, "a", 1); !errors.Is(err, outbox.ErrNotStarted) {
			t.Fatalf("after stop: %v", err)
		}
		if got, want := b.count(t, "outbox_ack"), b.count(t, "outbox"); got != want {
			t.Fatalf("stop left %d of %d events without an ack", want-got, want)
		}
		if err := b.outbox.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
