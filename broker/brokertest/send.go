package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
)

func testSend(t *testing.T, e *env) {
	topic := e.topic(t, 4, broker.Normal)
	received := e.subscribe(t, topic)
	sent := broker.Message{
		ID: strings.ToUpper(unique() + unique()), Topic: topic, Tag: "order.placed", Keys: []string{"k1", "k2"}, ShardingKey: "order 7",
		Properties: map[string]string{"CE_id": "1", "rf_previous": "0", "own": "värde 値"},
		Body:       []byte(strings.Repeat("compressible ", 1000)),
	}
	before := sent
	before.Properties = maps.Clone(sent.Properties)
	r := e.send(t, sent)
	if !maps.Equal(sent.Properties, before.Properties) || len(sent.Keys) != 2 {
		t.Errorf("the message was changed: %+v", sent)
	}
	got := received.wait(t, 1)[0]
	if got.ID != sent.ID || r.MessageID != sent.ID {
		t.Errorf("id %q, receipt %q, want %q", got.ID, r.MessageID, sent.ID)
	}
	if got.Topic != topic || got.Tag != sent.Tag || !slices.Equal(got.Keys, sent.Keys) || got.ShardingKey != sent.ShardingKey {
		t.Errorf("got topic %q tag %q keys %q sharding key %q", got.Topic, got.Tag, got.Keys, got.ShardingKey)
	}
	if !maps.Equal(got.Properties, sent.Properties) {
		t.Errorf("got properties %v, want %v", got.Properties, sent.Properties)
	}
	if string(got.Body) != string(sent.Body) {
		t.Errorf("body differs: %d bytes, want %d", len(got.Body), len(sent.Body))
	}
	if got.Broker != r.Broker || got.Queue != r.Queue || got.Offset != r.Offset || r.Broker == "" {
		t.Errorf("delivered from %s/%d/%d, receipt says %+v", got.Broker, got.Queue, got.Offset, r)
	}
	if got.Attempt != 1 || got.Born.IsZero() || got.Stored.IsZero() {
		t.Errorf("attempt %d, born %v, stored %v", got.Attempt, got.Born, got.Stored)
	}
}

func testSendAsync(t *testing.T, e *env) {
	const n = 200
	topic := e.topic(t, 4, broker.Normal)
	received := e.subscribe(t, topic)
	results := make(chan error, 2*n)
	for i := range n {
		err := e.SendAsync(e.ctx, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)}, func(r broker.Receipt, err error) {
			if err == nil && r.MessageID == "" {
				err = errors.New("receipt without message id")
			}
			results <- err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	received.wait(t, n)
	if len(results) != 0 {
		t.Errorf("done was called %d times too often", len(results))
	}
}

func testSendGroup(t *testing.T, e *env) {
	const n = 400
	topic := e.topic(t, 4, broker.FIFO)
	received := e.subscribe(t, topic)
	var ms []broker.Message
	for i := range n {
		m := broker.Message{Topic: topic, Tag: "t", Properties: map[string]string{"i": fmt.Sprint(i)}, Body: fmt.Appendf(nil, "m%d", i)}
		if i%4 != 0 {
			m.ShardingKey = fmt.Sprintf("key%d", i%7)
		}
		ms = append(ms, m)
	}
	if errs := e.SendGroup(e.ctx, ms); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	all := received.wait(t, n)
	ids := map[string]bool{}
	for _, d := range all {
		if d.ID == "" || ids[d.ID] {
			t.Fatalf("message %s: id %q is empty or not unique", d.Body, d.ID)
		}
		ids[d.ID] = true
	}
	checkKeys(t, all)
	// Send and SendGroup choose the same queue for a key.
	r := e.send(t, broker.Message{Topic: topic, ShardingKey: "key1", Body: []byte("single")})
	for _, d := range all {
		if d.ShardingKey == "key1" && d.Queue != r.Queue {
			t.Fatalf("group put key1 into queue %d, a single send into %d", d.Queue, r.Queue)
		}
	}
}

// checkKeys verifies that the messages of a key are in one queue, in the order of their property i.
func checkKeys(t *testing.T, all []broker.Delivery) {
	t.Helper()
	byKey := map[string][]broker.Delivery{}
	for _, d := range all {
		if d.ShardingKey != "" {
			byKey[d.ShardingKey] = append(byKey[d.ShardingKey], d)
		}
	}
	for key, ds := range byKey {
		slices.SortFunc(ds, func(a, b broker.Delivery) int { return int(a.Offset - b.Offset) })
		last := -1
		for _, d := range ds {
			var i int
			if _, err := fmt.Sscan(d.Properties["i"], &i); err != nil {
				t.Fatal(err)
			}
			if d.Queue != ds[0].Queue || d.Broker != ds[0].Broker {
				t.Fatalf("key %s is in queues %d and %d", key, ds[0].Queue, d.Queue)
			}
			if i <= last {
				t.Fatalf("key %s: message %d is stored after message %d", key, i, last)
			}
			last = i
		}
	}
}

func testSendGroupErrors(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	received := e.subscribe(t, topic)
	errs := e.SendGroup(e.ctx, []broker.Message{
		{Topic: topic, Body: []byte("first")},
		{Topic: topic, Body: []byte("reserved"), Properties: map[string]string{"TRAN_MSG": "true"}},
		{Topic: topic, Body: incompressible(e.MaxBody + 1)},
		{Topic: "no-such-" + unique(), Body: []byte("nowhere")},
		{Topic: topic, Body: []byte("last")},
	})
	if len(errs) != 5 {
		t.Fatalf("%d errors, want 5", len(errs))
	}
	var reserved *broker.ReservedPropertyError
	if errs[0] != nil || errs[4] != nil || !errors.As(errs[1], &reserved) || !errors.Is(errs[2], broker.ErrTooLarge) || !errors.Is(errs[3], broker.ErrTopicNotFound) {
		t.Fatalf("got %q", errs)
	}
	received.waitBody(t, "last")
	received.waitBody(t, "first")
}

func testSendRefusesReservedProperty(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	var tr broker.TransactionProducer
	if e.hasHalfMessages(t) {
		tr = e.transactionProducer(t, e.Driver, "producers-"+unique(), noCheck)
	}
	for _, name := range []string{"KEYS", "TAGS", "DELAY", "TRAN_MSG", "PGROUP", "UNIQ_KEY", "TIMER_DELIVER_MS", "__STARTDELIVERTIME", "SHARDING_KEY", broker.ShardingKeyProperty} {
		m := broker.Message{Topic: topic, Body: []byte("x"), Properties: map[string]string{name: "1"}}
		_, sendErr := e.Send(e.ctx, m)
		errs := []error{sendErr}
		if tr != nil {
			_, prepareErr := tr.Prepare(e.ctx, m)
			errs = append(errs, prepareErr)
		}
		for _, err := range errs {
			var reserved *broker.ReservedPropertyError
			if !errors.As(err, &reserved) || reserved.Property != name || !errors.Is(err, broker.ErrRejected) {
				t.Errorf("property %s: got %v", name, err)
			}
		}
	}
	for _, p := range []map[string]string{{"a\x01b": "v"}, {"a": "v\x02"}, {"": "v"}} {
		if _, err := e.Send(e.ctx, broker.Message{Topic: topic, Body: []byte("x"), Properties: p}); !errors.Is(err, broker.ErrIllegal) {
			t.Errorf("properties %q: got %v", p, err)
		}
	}
}

func testSendToUnknownTopic(t *testing.T, e *env) {
	topic := "no-such-" + unique()
	m := broker.Message{Topic: topic, Body: []byte("x")}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, broker.ErrTopicNotFound) || !errors.Is(err, broker.ErrRejected) || !strings.Contains(err.Error(), topic) {
			t.Errorf("%s: got %v, want an ErrTopicNotFound that names the topic", what, err)
		}
	}
	_, err := e.Send(e.ctx, m)
	check("send", err)
	if e.hasHalfMessages(t) {
		_, err = e.transactionProducer(t, e.Driver, "producers-"+unique(), noCheck).Prepare(e.ctx, m)
		check("prepare", err)
	}
	_, err = e.Subscribe(e.ctx, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, newCollector().put)
	check("subscribe", err)
}

func testSendOversize(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	received := e.subscribe(t, topic)
	if _, err := e.Send(e.ctx, broker.Message{Topic: topic, Body: incompressible(e.MaxBody + 1)}); !errors.Is(err, broker.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	body := incompressible(e.MaxBody / 8)
	e.send(t, broker.Message{Topic: topic, Body: body})
	if got := received.wait(t, 1)[0]; string(got.Body) != string(body) {
		t.Error("large body differs")
	}
}

func testSendAfterContextEnded(t *testing.T, e *env) {
	topic := e.topic(t, 1, broker.Normal)
	received := e.subscribe(t, topic)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if _, err := e.Send(ctx, broker.Message{Topic: topic, Body: []byte("late")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	e.send(t, broker.Message{Topic: topic, Body: []byte("marker")})
	received.waitBody(t, "marker")
	if received.count("late") != 0 {
		t.Error("a message was sent after its context had ended")
	}
}

func testOrderByShardingKey(t *testing.T, e *env) {
	const n = 120
	topic := e.topic(t, 8, broker.FIFO)
	received := e.subscribe(t, topic)
	other := e.Open(t)
	for i := range n {
		d := e.Driver
		if i%2 == 0 {
			d = other // another process must choose the same queue
		}
		if _, err := d.Send(e.ctx, broker.Message{Topic: topic, ShardingKey: fmt.Sprintf("key%d", i%6), Properties: map[string]string{"i": fmt.Sprint(i)}, Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	checkKeys(t, received.wait(t, n))
}

func testGlobalOrder(t *testing.T, e *env) {
	const n = 50
	topic := e.topic(t, 1, broker.FIFO)
	received := newCollector()
	failed := false // the handler is serial
	e.consume(t, e.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Serial: true}, func(ctx context.Context, d broker.Delivery) error {
		if string(d.Body) == "m10" && !failed {
			failed = true
			return errors.New("deliver it again")
		}
		return received.put(ctx, d)
	})
	for i := range n {
		e.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)})
	}
	for i, d := range received.wait(t, n)[:n] {
		if want := fmt.Sprintf("m%d", i); string(d.Body) != want {
			t.Fatalf("message %d is %s, want %s", i, d.Body, want)
		}
	}
}

// incompressible returns n bytes that can't be compressed, the same each time.
func incompressible(n int) []byte {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
