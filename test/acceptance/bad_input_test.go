package acceptance

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/test/testdb"
	"github.com/rocketflow/rocketflow/test/testoperator"
	"github.com/rocketflow/rocketflow/timeout"
)

// raw is an event whose body is no JSON, so that its size is its size: what can be compressed is, on the wire.
func raw(topic string, size int) rocketflow.Event {
	body := make([]byte, size)
	_, _ = rand.Read(body) // never fails
	return rocketflow.Event{Topic: topic, Type: "counted", Subject: "k", ContentType: "application/octet-stream", Body: body}
}

// wantHandled publishes a good event behind the bad ones and waits for its effect.
func (s *service) wantHandled(box *outbox.Outbox, key string) {
	s.t.Helper()
	if err := s.publish(box, event{key, 1, s.topic}); err != nil {
		s.t.Fatal(err)
	}
	poll.Within(s.t, 20*time.Second, "the good event of "+key+" is handled", func() bool {
		return s.count("SELECT count(*) FROM effect WHERE key = $1", key) == 1
	})
}

// TestBadEventsInATopicHoldUpNoOther checks that an event that can't be handled is a dead letter with the reason, an event
// without a handler is passed over, and the next event of another aggregate is handled.
func TestBadEventsInATopicHoldUpNoOther(t *testing.T) {
	t.Parallel()
	s := setup(t)
	box := s.outbox()
	skipped := make(chan rocketflow.Event, 10)
	router := s.router(box, func(c *handlers.Config) {
		c.Listener = &handlers.Listener{Skipped: func(i handlers.EventInfo) { skipped <- i.Event }}
	})
	router.Handle("ledger", s.topic, "counted", record)
	s.start(router)

	unknown := rocketflow.Event{Topic: s.topic, Type: "never.heard.of", Subject: "same", Body: []byte("{}")}
	number := rocketflow.Event{Topic: s.topic, Type: "counted", Subject: "no number", Body: []byte(`{"number": "one"}`)}
	binary := raw(s.topic, 100)
	if err := s.publish(box, unknown, number, binary); err != nil {
		t.Fatal(err)
	}
	// Messages that no outbox would send.
	for _, m := range []broker.Message{
		{Topic: s.topic, Tag: "counted", Keys: []string{"foreign"}, Body: []byte("no json")},
		{Topic: s.topic, Properties: map[string]string{"CE_specversion": "1.0", "CE_id": "1", "CE_source": "x", "CE_type": "counted", "CE_time": "yesterday"}, Body: []byte("{}")},
	} {
		if _, err := s.client.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	s.wantHandled(box, "same") // of the aggregate of the unknown type
	s.wantHandled(box, "another")
	if e := <-skipped; e.Type != unknown.Type {
		t.Errorf("skipped %s", e.Type)
	}

	dead := testoperator.New(t, s.pool, s.schema)
	var list []operate.ParkedEvent
	poll.Within(t, 20*time.Second, "four dead letters", func() bool {
		var err error
		if list, err = dead.DeadLetters(t.Context(), operate.ParkedFilter{Consumer: "ledger"}); err != nil {
			t.Fatal(err)
		}
		return len(list) == 4
	})
	for subject, want := range map[string]string{
		"no number": "number", "k": "application/octet-stream", "foreign": "invalid character", "": "CE_time",
	} {
		found := false
		for _, d := range list {
			if d.Event.Subject == subject {
				found = true
				if !strings.Contains(d.LastError, want) || !strings.Contains(d.LastError, rocketflow.ErrUndecodable.Error()) {
					t.Errorf("dead letter of %q says %q, want %q in it", subject, d.LastError, want)
				}
			}
		}
		if !found {
			t.Errorf("no dead letter of %q", subject)
		}
	}
}

// TestAnInvalidEventFailsItsTransaction checks that publishing an invalid event fails its transaction with an error that
// names the field, and leaves nothing.
func TestAnInvalidEventFailsItsTransaction(t *testing.T) {
	t.Parallel()
	s := setup(t)
	// A half message learns what the broker never takes before the commit; there has to be time for one.
	patient := func(c *outbox.Config) {
		c.Path, c.HalfTimeout, c.SweepGrace = outbox.HalfMessages, 20*time.Second, time.Minute
	}
	box := s.outbox(patient, func(c *outbox.Config) { c.MaxBody = 8 << 20; c.Topics = []string{s.topic} })
	strict := s.outbox(func(c *outbox.Config) { c.Group = s.topic + "-strict"; c.Broker = connect(t, s.nameServers) })
	router := s.router(box)
	router.Handle("ledger", s.topic, "counted", record)
	s.start(router)
	s.exec("CREATE TABLE business (name text)")

	headers := func(name string) rocketflow.Event {
		e := raw(s.topic, 10)
		e.Headers = map[string]string{name: "v"}
		return e
	}
	for name, c := range map[string]struct {
		box   *outbox.Outbox
		event rocketflow.Event
		kind  error
		want  string
	}{
		"property of RocketMQ":    {box, headers("UNIQ_KEY"), broker.ErrRejected, "UNIQ_KEY"},
		"property of CloudEvents": {box, headers("CE_id"), broker.ErrRejected, "CE_id"},
		"over MaxBody":            {strict, raw(s.topic, 1<<20+1), nil, "body"},
		"over the broker's limit": {box, raw(s.topic, 3<<20), broker.ErrTooLarge, s.topic},
		"topic not listed":        {box, raw("elsewhere", 10), nil, "elsewhere"},
		"no type":                 {box, rocketflow.Event{Topic: s.topic, Body: []byte("{}")}, nil, "type"},
	} {
		err := c.box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO business VALUES ($1)", name); err != nil {
				return err
			}
			return tx.Publish(ctx, event{"beside " + name, 1, s.topic}, c.event)
		})
		switch {
		case err == nil:
			t.Errorf("%s: published", name)
		case c.kind != nil && !errors.Is(err, c.kind), !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: got %q, want %v and %q in it", name, err, c.kind, c.want)
		}
	}
	if n := s.count("SELECT count(*) FROM business") + s.count("SELECT count(*) FROM outbox"); n != 0 {
		t.Errorf("%d rows are left of failed transactions", n)
	}
	s.wantHandled(box, "good")
	if n := s.count("SELECT count(*) FROM effect"); n != 1 {
		t.Errorf("%d effects, want that of the good event", n)
	}
}

// TestATimeoutInThePastFiresAtOnce arms a timeout for a time that has passed. It fires at once, through the broker.
func TestATimeoutInThePastFiresAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	box := s.outbox()
	timer := s.timer()
	router := s.router(box)
	router.Use(timer.Fence)
	router.Handle("ledger", s.topic, "counted", record)
	s.start(timer, router)
	armed := time.Now()
	if err := box.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
		return timer.Arm(ctx, tx, "order", "payment", armed.Add(-time.Hour), event{"order", 1, s.topic})
	}); err != nil {
		t.Fatal(err)
	}
	poll.Within(t, 20*time.Second, "it fires", func() bool { return s.count("SELECT count(*) FROM effect") == 1 })
	if took := time.Since(armed); took > 4*time.Second { // the sweep would come after five
		t.Errorf("fired after %v", took)
	}
	if n := s.count("SELECT count(*) FROM timeout"); n != 0 {
		t.Errorf("%d timeouts left", n)
	}
}

func TestAnUnknownTopicIsNamedInTheError(t *testing.T) {
	t.Parallel()
	s := setup(t)
	missing := s.topic + "-missing"
	wantMissing := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, broker.ErrTopicNotFound) || !strings.Contains(err.Error(), missing) {
			t.Errorf("%s: got %v, want ErrTopicNotFound and the topic's name", what, err)
		}
	}
	config := s.outboxConfig()
	config.Topics = []string{s.topic, missing}
	declared, err := outbox.New(config)
	if err != nil {
		t.Fatal(err)
	}
	wantMissing("start of an outbox that declares it", declared.Start(t.Context()))

	box := s.outbox()
	router := s.router(box)
	router.Handle("ledger", missing, "counted", record)
	wantMissing("start of a router that reads it", router.Start(bounded(t, 30*time.Second)))

	// An event of a topic that isn't declared is owed until the topic is there.
	if err := s.publish(box, event{"early", 1, missing}); err != nil {
		t.Fatal(err)
	}
	if owed, _, err := box.Backlog(t.Context()); err != nil || owed != 1 {
		t.Fatalf("%d events are owed (%v), want 1", owed, err)
	}
	s.createTopic(missing, 1)
	s.start(router) // the same router: a failed start leaves nothing
	poll.Within(t, 60*time.Second, "the early event is handled", func() bool {
		return s.count("SELECT count(*) FROM effect WHERE key = 'early'") == 1
	})
	poll.Within(t, 10*time.Second, "nothing is owed", func() bool { owed, _, err := box.Backlog(t.Context()); return err == nil && owed == 0 })
}

func TestStartFailsWithoutMigrations(t *testing.T) {
	t.Parallel()
	s := setup(t)
	pool, schema := testdb.Schema(t)
	box, err := outbox.New(outbox.Config{Pool: pool, Broker: s.client, Source: s.topic, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	other := func(c *handlers.Config) { c.Pool, c.Schema = pool, schema }
	plain := s.router(box, other)
	plain.Handle("ledger", s.topic, "counted", record)
	timer := s.timer(func(c *timeout.Config) { c.Pool, c.Schema = pool, schema })
	// A saga's events come by its router.
	sagas := s.router(box, other)
	engine, err := saga.New(saga.Config{Pool: pool, Schema: schema, Router: sagas, Transactor: box, Consumer: "sagas", Timer: timer, TimeoutTopic: s.topic})
	if err != nil {
		t.Fatal(err)
	}
	registerOrders(t, engine)
	for name, p := range map[string]part{"outbox": box, "handlers": plain, "timeout": timer, "saga": sagas} {
		err := p.Start(bounded(t, 20*time.Second))
		if !errors.Is(err, rocketflow.ErrNotMigrated) || !strings.Contains(err.Error(), schema) || !strings.Contains(err.Error(), "rocketflow migrate up") {
			t.Errorf("%s: got %v, want ErrNotMigrated, the schema's name and what to do", name, err)
		}
		if err == nil {
			_ = p.Stop(context.Background())
		}
	}
}
