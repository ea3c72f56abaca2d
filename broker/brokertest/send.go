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

func testSend(t *testing.T, b *bench) {
	topic := b.topic(t, 4, broker.Normal)
	in := b.subscribe(t, topic)
	sent := broker.Message{
		ID: strings.ToUpper(unique() + unique()), Topic: topic, Tag: "order.placed", Keys: []string{"k1", "k2"}, ShardingKey: "order 7",
		Properties: map[string]string{"CE_id": "1", "rf_previous": "0", "own": "värde 値"},
		Body:       []byte(strings.Repeat("compressible ", 1000)),
	}
	before := sent
	before.Properties = maps.Clone(sent.Properties)
	r := b.send(t, sent)
	if !maps.Equal(sent.Properties, before.Properties) || len(sent.Keys) != 2 {
		t.Errorf("the message was changed: %+v", sent)
	}
	got := in.wait(t, 1)[0]
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

func testSendAsync(t *testing.T, b *bench) {
	const n = 200
	topic := b.topic(t, 4, broker.Normal)
	in := b.subscribe(t, topic)
	results := make(chan error, 2*n)
	for i := range n {
		err := b.SendAsync(b.ctx, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)}, func(r broker.Receipt, err error) {
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
	in.wait(t, n)
	if len(results) != 0 {
		t.Errorf("done was called %d times too often", len(results))
	}
}

func testSendGroup(t *testing.T, b *bench) {
	const n = 400
	topic := b.topic(t, 4, broker.FIFO)
	in := b.subscribe(t, topic)
	var ms []broker.Message
	for i := range n {
		m := broker.Message{Topic: topic, Tag: "t", Properties: map[string]string{"i": fmt.Sprint(i)}, Body: fmt.Appendf(nil, "m%d", i)}
		if i%4 != 0 {
			m.ShardingKey = fmt.Sprintf("key%d", i%7)
		}
		ms = append(ms, m)
	}
	if errs := b.SendGroup(b.ctx, ms); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	all := in.wait(t, n)
	ids := map[string]bool{}
	for _, d := range all {
		if d.ID == "" || ids[d.ID] {
			t.Fatalf("message %s: id %q is empty or not unique", d.Body, d.ID)
		}
		ids[d.ID] = true
	}
	checkKeys(t, all)
	// A single send and a group agree about the queue of a key.
	r := b.send(t, broker.Message{Topic: topic, ShardingKey: "key1", Body: []byte("single")})
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

func testSendGroupErrors(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	in := b.subscribe(t, topic)
	errs := b.SendGroup(b.ctx, []broker.Message{
		{Topic: topic, Body: []byte("first")},
		{Topic: topic, Body: []byte("reserved"), Properties: map[string]string{"TRAN_MSG": "true"}},
		{Topic: topic, Body: incompressible(b.MaxBody + 1)},
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
	in.waitBody(t, "last")
	in.waitBody(t, "first")
}

func testReservedProperty(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	tr := b.transactor(t, b.Driver, "producers-"+unique(), noCheck)
	for _, name := range []string{"KEYS", "TAGS", "DELAY", "TRAN_MSG", "PGROUP", "UNIQ_KEY", "TIMER_DELIVER_MS", "__STARTDELIVERTIME", "SHARDING_KEY"} {
		m := broker.Message{Topic: topic, Body: []byte("x"), Properties: map[string]string{name: "1"}}
		_, sendErr := b.Send(b.ctx, m)
		_, prepareErr := tr.Prepare(b.ctx, m)
		for _, err := range []error{sendErr, prepareErr} {
			var reserved *broker.ReservedPropertyError
			if !errors.As(err, &reserved) || reserved.Property != name || !errors.Is(err, broker.ErrRejected) {
				t.Errorf("property %s: got %v", name, err)
			}
		}
	}
	for _, p := range []map[string]string{{"a\x01b": "v"}, {"a": "v\x02"}, {"": "v"}} {
		if _, err := b.Send(b.ctx, broker.Message{Topic: topic, Body: []byte("x"), Properties: p}); !errors.Is(err, broker.ErrIllegal) {
			t.Errorf("properties %q: got %v", p, err)
		}
	}
}

func testUnknownTopic(t *testing.T, b *bench) {
	topic := "no-such-" + unique()
	m := broker.Message{Topic: topic, Body: []byte("x")}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, broker.ErrTopicNotFound) || !errors.Is(err, broker.ErrRejected) || !strings.Contains(err.Error(), topic) {
			t.Errorf("%s: got %v, want an ErrTopicNotFound that names the topic", what, err)
		}
	}
	_, err := b.Send(b.ctx, m)
	check("send", err)
	_, err = b.transactor(t, b.Driver, "producers-"+unique(), noCheck).Prepare(b.ctx, m)
	check("prepare", err)
	_, err = b.Subscribe(b.ctx, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}}, newInbox().put)
	check("subscribe", err)
}

func testOversize(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	in := b.subscribe(t, topic)
	if _, err := b.Send(b.ctx, broker.Message{Topic: topic, Body: incompressible(b.MaxBody + 1)}); !errors.Is(err, broker.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	body := incompressible(b.MaxBody / 8)
	b.send(t, broker.Message{Topic: topic, Body: body})
	if got := in.wait(t, 1)[0]; string(got.Body) != string(body) {
		t.Error("large body differs")
	}
}

func testContextEnded(t *testing.T, b *bench) {
	topic := b.topic(t, 1, broker.Normal)
	in := b.subscribe(t, topic)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if _, err := b.Send(ctx, broker.Message{Topic: topic, Body: []byte("late")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	b.send(t, broker.Message{Topic: topic, Body: []byte("marker")})
	in.waitBody(t, "marker")
	if in.count("late") != 0 {
		t.Error("a message was sent after its context had ended")
	}
}

func testShardingKey(t *testing.T, b *bench) {
	const n = 120
	topic := b.topic(t, 8, broker.FIFO)
	in := b.subscribe(t, topic)
	other := b.Open(t)
	for i := range n {
		d := b.Driver
		if i%2 == 0 {
			d = other // another process must agree about the queue
		}
		if _, err := d.Send(b.ctx, broker.Message{Topic: topic, ShardingKey: fmt.Sprintf("key%d", i%6), Properties: map[string]string{"i": fmt.Sprint(i)}, Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	checkKeys(t, in.wait(t, n))
}

func testGlobalOrder(t *testing.T, b *bench) {
	const n = 50
	topic := b.topic(t, 1, broker.FIFO)
	in := newInbox()
	failed := false // the handler is serial
	b.consume(t, b.Driver, broker.Subscription{Group: "group-" + unique(), Topics: []string{topic}, Serial: true}, func(ctx context.Context, d broker.Delivery) error {
		if string(d.Body) == "m10" && !failed {
			failed = true
			return errors.New("once more, please")
		}
		return in.put(ctx, d)
	})
	for i := range n {
		b.send(t, broker.Message{Topic: topic, Body: fmt.Appendf(nil, "m%d", i)})
	}
	for i, d := range in.wait(t, n)[:n] {
		if want := fmt.Sprintf("m%d", i); string(d.Body) != want {
			t.Fatalf("message %d is %s, want %s", i, d.Body, want)
		}
	}
}

// incompressible bytes, the same each time.
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
