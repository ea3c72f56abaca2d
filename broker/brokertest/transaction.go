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

func prepare(t *testing.T, b *bench, tr broker.TransactionProducer, topic, body string) broker.Half {
	t.Helper()
	h, err := tr.Prepare(b.ctx, broker.Message{
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

// byID answers checks by the CE_id of the half message, which is its body, too; unknown for others.
type byID struct {
	mu      sync.Mutex
	answers map[string]broker.Decision
	asked   map[string]broker.Check
	ended   chan error
}

func checker(answers map[string]broker.Decision) *byID {
	return &byID{answers: answers, asked: map[string]broker.Check{}, ended: make(chan error, 100)}
}

func (c *byID) check(_ context.Context, ck broker.Check) (broker.Decision, func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[ck.Message.Properties["CE_id"]] = ck
	return c.answers[ck.Message.Properties["CE_id"]], func(err error) { c.ended <- err }
}

func (c *byID) wasAsked(body string) (broker.Check, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ck, ok := c.asked[body]
	return ck, ok
}

func testCommit(t *testing.T, b *bench) {
	topic := b.topic(t, 4, broker.Transaction)
	in := b.subscribe(t, topic)
	tr := b.transactor(t, b.Driver, "producers-"+unique(), noCheck)
	h := prepare(t, b, tr, topic, "half")
	b.send(t, broker.Message{Topic: topic, ShardingKey: "key", Body: []byte("marker")})
	in.waitBody(t, "marker")
	if in.count("half") != 0 {
		t.Fatal("a half message is visible before its commit")
	}
	if err := tr.Commit(b.ctx, h); err != nil {
		t.Fatal(err)
	}
	d := in.waitBody(t, "half")
	if d.ID != h.MessageID || d.Topic != topic || d.Tag != "tag" || d.ShardingKey != "key" || !maps.Equal(d.Properties, map[string]string{"CE_id": "half", "rf_db": "1"}) {
		t.Errorf("got %+v", d)
	}
	// Wrong hands: the broker refuses, and says so.
	wrong := h
	wrong.Group = "producers-" + unique()
	if err := tr.Commit(b.ctx, wrong); err == nil {
		t.Error("committed for another group")
	}
}

func testRollback(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	c := checker(map[string]broker.Decision{"open": broker.Commit, "rolled back": broker.Commit})
	tr := b.transactor(t, b.Driver, "producers-"+unique(), c.check)
	h := prepare(t, b, tr, topic, "rolled back")
	if err := tr.Rollback(b.ctx, h); err != nil {
		t.Fatal(err)
	}
	// Half messages are checked in their order: once a later one is, the earlier one would have been.
	prepare(t, b, tr, topic, "open")
	in.waitBody(t, "open")
	if _, asked := c.wasAsked("rolled back"); asked || in.count("rolled back") != 0 {
		t.Errorf("after its rollback: asked %v, delivered %d times", asked, in.count("rolled back"))
	}
}

func testCommitTwice(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	tr := b.transactor(t, b.Driver, "producers-"+unique(), noCheck)
	h := prepare(t, b, tr, topic, "half")
	for range 2 {
		if err := tr.Commit(b.ctx, h); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.Rollback(b.ctx, h); err != nil {
		t.Fatal(err)
	}
	in.wait(t, 2)
}

func testCheckCommits(t *testing.T, b *bench) {
	topic := b.topic(t, 4, broker.Transaction)
	in := b.subscribe(t, topic)
	c := checker(map[string]broker.Decision{"commit": broker.Commit, "rollback": broker.Rollback, "last": broker.Commit})
	tr := b.transactor(t, b.Driver, "producers-"+unique(), c.check)
	prepare(t, b, tr, topic, "rollback")
	h := prepare(t, b, tr, topic, "commit")
	in.waitBody(t, "commit")
	if err := <-c.ended; err != nil {
		t.Errorf("done got %v", err)
	}
	prepare(t, b, tr, topic, "last")
	in.waitBody(t, "last")
	if _, asked := c.wasAsked("rollback"); !asked || in.count("rollback") != 0 {
		t.Errorf("rolled back by a check: asked %v, delivered %d times", asked, in.count("rollback"))
	}
	ck, _ := c.wasAsked("commit")
	m := ck.Message
	if ck.Half.MessageID != h.MessageID || ck.Half.Group != h.Group || m.ID != h.MessageID || m.Topic != topic || m.Tag != "tag" ||
		m.ShardingKey != "key" || m.Attempt != 1 || len(m.Body) > 0 || m.Born.IsZero() || !maps.Equal(m.Properties, map[string]string{"CE_id": "commit", "rf_db": "1"}) {
		t.Errorf("check %+v of half message %+v", ck, h)
	}
}

func testCheckUnknown(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	var asked atomic.Int32
	tr := b.transactor(t, b.Driver, "producers-"+unique(), func(_ context.Context, ck broker.Check) (broker.Decision, func(error)) {
		if n := int(asked.Add(1)); n < 3 {
			if ck.Message.Attempt != n {
				t.Errorf("check %d has attempt %d", n, ck.Message.Attempt)
			}
			return broker.Unknown, nil
		}
		return broker.Commit, nil
	})
	prepare(t, b, tr, topic, "half")
	in.waitBody(t, "half")
}

func testCheckPanics(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	var asked atomic.Int32
	tr := b.transactor(t, b.Driver, "producers-"+unique(), func(context.Context, broker.Check) (broker.Decision, func(error)) {
		switch asked.Add(1) {
		case 1:
			panic("checker")
		case 2:
			runtime.Goexit()
		}
		return broker.Commit, func(error) { panic("done") }
	})
	prepare(t, b, tr, topic, "half")
	in.waitBody(t, "half")
	prepare(t, b, tr, topic, "another")
	in.waitBody(t, "another")
}

func testCheckOther(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	group := "producers-" + unique()
	tr := b.transactor(t, b.Driver, group, noCheck)
	b.transactor(t, b.Open(t), group, checker(map[string]broker.Decision{"half": broker.Commit}).check)
	prepare(t, b, tr, topic, "half")
	if err := tr.Close(b.ctx); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(b.ctx); err != nil {
		t.Errorf("second close: %v", err)
	}
	in.waitBody(t, "half")
}

func testCheckRestart(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Transaction)
	in := b.subscribe(t, topic)
	group := "producers-" + unique()
	first := b.Open(t)
	prepare(t, b, b.transactor(t, first, group, noCheck), topic, "orphan")
	b.Close(t, first)
	// The new process has sent nothing and never will.
	b.transactor(t, b.Open(t), group, checker(map[string]broker.Decision{"orphan": broker.Commit}).check)
	in.waitBody(t, "orphan")
}
