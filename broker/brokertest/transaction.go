package brokertest

import (
	"context"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
)

func noCheck(context.Context, broker.Check) (broker.Decision, func(error)) {
	return broker.Unknown, nil
}

func prepare(t *testing.T, e *env, tr broker.TransactionProducer, topic, body string) broker.Half {
	t.Helper()
	h, err := tr.Prepare(e.ctx, broker.Message{
		Topic: topic, Tag: "tag", ShardingKey: "key", Properties: map[string]string{"CE_id": body, "rf_db": "1"}, Body: []byte(body),
	})
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	if h.MessageID == "" || h.Topic != topic {
		t.Fatalf("half message %+v", h)
	}
	return h
}

// fixedDecisions is a checker with a decision for each half message, by its property CE_id, which equals its body.
type fixedDecisions struct {
	mu        sync.Mutex
	decisions map[string]broker.Decision
	checked   map[string]broker.Check
	ended     chan error
}

func newFixedDecisions(decisions map[string]broker.Decision) *fixedDecisions {
	return &fixedDecisions{decisions: decisions, checked: map[string]broker.Check{}, ended: make(chan error, 100)}
}

func (c *fixedDecisions) check(_ context.Context, ck broker.Check) (broker.Decision, func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked[ck.Message.Properties["CE_id"]] = ck
	return c.decisions[ck.Message.Properties["CE_id"]], func(err error) { c.ended <- err }
}

func (c *fixedDecisions) wasChecked(body string) (broker.Check, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ck, ok := c.checked[body]
	return ck, ok
}

func testTransactionCommit(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 4, broker.Transaction)
	received := e.subscribe(t, topic)
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), noCheck)
	h := prepare(t, e, tr, topic, "half")
	e.send(t, broker.Message{Topic: topic, ShardingKey: "key", Body: []byte("marker")})
	received.waitBody(t, "marker")
	if received.count("half") != 0 {
		t.Fatal("a half message is visible before its commit")
	}
	if err := tr.Commit(e.ctx, h); err != nil {
		t.Fatal(err)
	}
	d := received.waitBody(t, "half")
	if d.ID != h.MessageID || d.Topic != topic || d.Tag != "tag" || d.ShardingKey != "key" || !maps.Equal(d.Properties, map[string]string{"CE_id": "half", "rf_db": "1"}) {
		t.Errorf("got %+v", d)
	}
	// The broker must refuse a commit for another group, with an error.
	wrong := h
	wrong.Group = "producers-" + unique()
	if err := tr.Commit(e.ctx, wrong); err == nil {
		t.Error("committed for another group")
	}
}

func testTransactionRollback(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	c := newFixedDecisions(map[string]broker.Decision{"open": broker.Commit, "rolled back": broker.Commit})
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), c.check)
	h := prepare(t, e, tr, topic, "rolled back")
	if err := tr.Rollback(e.ctx, h); err != nil {
		t.Fatal(err)
	}
	// Half messages are checked in their order: when a later one has been checked, the earlier one would have been, too.
	prepare(t, e, tr, topic, "open")
	received.waitBody(t, "open")
	if _, wasChecked := c.wasChecked("rolled back"); wasChecked || received.count("rolled back") != 0 {
		t.Errorf("after its rollback: checked %v, delivered %d times", wasChecked, received.count("rolled back"))
	}
}

func testTransactionCommitTwice(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), noCheck)
	h := prepare(t, e, tr, topic, "half")
	for range 2 {
		if err := tr.Commit(e.ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Rollback(e.ctx, h); err != nil {
		t.Fatal(err)
	}
	received.wait(t, 2)
}

func testCheckCommits(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 4, broker.Transaction)
	received := e.subscribe(t, topic)
	c := newFixedDecisions(map[string]broker.Decision{"commit": broker.Commit, "rollback": broker.Rollback, "last": broker.Commit})
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), c.check)
	prepare(t, e, tr, topic, "rollback")
	h := prepare(t, e, tr, topic, "commit")
	received.waitBody(t, "commit")
	if err := <-c.ended; err != nil {
		t.Errorf("done got %v", err)
	}
	prepare(t, e, tr, topic, "last")
	received.waitBody(t, "last")
	if _, wasChecked := c.wasChecked("rollback"); !wasChecked || received.count("rollback") != 0 {
		t.Errorf("rolled back by a check: checked %v, delivered %d times", wasChecked, received.count("rollback"))
	}
	ck, _ := c.wasChecked("commit")
	m := ck.Message
	if ck.Half.MessageID != h.MessageID || ck.Half.Group != h.Group || m.ID != h.MessageID || m.Topic != topic || m.Tag != "tag" ||
		m.ShardingKey != "key" || m.Attempt != 1 || len(m.Body) > 0 || m.Born.IsZero() || !maps.Equal(m.Properties, map[string]string{"CE_id": "commit", "rf_db": "1"}) {
		t.Errorf("check %+v of half message %+v", ck, h)
	}
}

func testCheckUnknownThenCommits(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	var checked atomic.Int32
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), func(_ context.Context, ck broker.Check) (broker.Decision, func(error)) {
		if n := int(checked.Add(1)); n < 3 {
			if ck.Message.Attempt != n {
				t.Errorf("check %d has attempt %d", n, ck.Message.Attempt)
			}
			return broker.Unknown, nil
		}
		return broker.Commit, nil
	})
	prepare(t, e, tr, topic, "half")
	received.waitBody(t, "half")
}

func testCheckPanics(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	var checked atomic.Int32
	tr := e.transactionProducer(t, e.Driver, "producers-"+unique(), func(context.Context, broker.Check) (broker.Decision, func(error)) {
		switch checked.Add(1) {
		case 1:
			panic("checker")
		case 2:
			runtime.Goexit()
		}
		return broker.Commit, func(error) { panic("done") }
	})
	prepare(t, e, tr, topic, "half")
	received.waitBody(t, "half")
	prepare(t, e, tr, topic, "another")
	received.waitBody(t, "another")
}

func testCheckAnsweredByOtherMember(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	group := "producers-" + unique()
	tr := e.transactionProducer(t, e.Driver, group, noCheck)
	e.transactionProducer(t, e.openWith(t, topic), group, newFixedDecisions(map[string]broker.Decision{"half": broker.Commit}).check)
	prepare(t, e, tr, topic, "half")
	if err := tr.Close(e.ctx); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(e.ctx); err != nil {
		t.Errorf("second close: %v", err)
	}
	received.waitBody(t, "half")
}

func testCheckAnsweredAfterRestart(t *testing.T, e *env) {
	if !e.hasHalfMessages(t) {
		return
	}
	topic := e.topic(t, 1, broker.Transaction)
	received := e.subscribe(t, topic)
	group := "producers-" + unique()
	first := e.Open(t)
	prepare(t, e, e.transactionProducer(t, first, group, noCheck), topic, "orphan")
	e.Close(t, first)
	// The new process sends nothing.
	e.transactionProducer(t, e.openWith(t, topic), group, newFixedDecisions(map[string]broker.Decision{"orphan": broker.Commit}).check)
	received.waitBody(t, "orphan")
}

// openWith opens another client that knows the brokers of a topic.
func (e *env) openWith(t *testing.T, topic string) Driver {
	t.Helper()
	d := e.Open(t)
	if e.BrokersByTopic {
		e.consume(t, d, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, newCollector().put)
	}
	return d
}
