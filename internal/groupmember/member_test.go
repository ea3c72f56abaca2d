package groupmember_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/internal/groupmember"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "orders"

// network is the connection of one member to the one broker of a test, made anew when it breaks.
type network struct {
	names   string // address of the name server
	address string // of the broker
	group   string
	id      string
	changed func()

	mu     sync.Mutex
	conn   *remoting.Conn
	dialed int64 // how many connections were made
}

func (n *network) Queues(ctx context.Context, topic string) ([]groupmember.Queue, error) {
	conn, err := remoting.Dial(ctx, n.names, remoting.Credentials{}, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, err := conn.Call(ctx, &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": topic, "acceptStandardJsonOnly": "true"}})
	if err != nil {
		return nil, err
	}
	var route remoting.Route
	if err := remoting.DecodeJSON(answer.Body, &route); err != nil {
		return nil, err
	}
	var queues []groupmember.Queue
	for _, q := range route.Queues {
		for id := range q.Read {
			queues = append(queues, groupmember.Queue{Topic: topic, Broker: q.Broker, ID: id})
		}
	}
	return queues, nil
}

func (n *network) Replica(string, int) int { return groupmember.Master }

func (n *network) Call(ctx context.Context, _ string, _ int, request *remoting.Command) (*remoting.Command, error) {
	return n.call(ctx, request)
}

func (n *network) Connection(string) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn == nil || n.conn.Err() != nil {
		return 0
	}
	return n.dialed
}

func (n *network) call(ctx context.Context, request *remoting.Command) (*remoting.Command, error) {
	conn, err := n.connection(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Call(ctx, request)
}

func (n *network) connection(ctx context.Context) (*remoting.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil && n.conn.Err() == nil {
		return n.conn, nil
	}
	conn, err := remoting.Dial(ctx, n.address, remoting.Credentials{}, func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
		if request.Code == remoting.ConsumersChanged && n.changed != nil {
			n.changed()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n.id != "" {
		body, err := json.Marshal(map[string]any{"clientID": n.id, "producerDataSet": []any{}, "consumerDataSet": []any{map[string]any{
			"groupName": n.group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING", "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
			"subscriptionDataSet": []any{map[string]any{"topic": topic, "subString": "*", "expressionType": "TAG", "subVersion": 1}},
		}}})
		if err != nil {
			return nil, err
		}
		if _, err := conn.Call(ctx, &remoting.Command{Code: remoting.Heartbeat, Body: body}); err != nil {
			conn.Close()
			return nil, err
		}
	}
	if n.conn != nil {
		n.conn.Close()
	}
	n.conn = conn
	n.dialed++
	return conn, nil
}

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.conn != nil {
		n.conn.Close()
	}
}

// bundle is a broker with a topic, and what was handled.
type bundle struct {
	*testing.T
	server *rocketmqtest.Server
	group  string
	sender *network

	mu      sync.Mutex
	handled map[string]int
	order   map[int][]int64 // offsets by queue
	changed chan struct{}
}

func setup(t *testing.T, queues int, config ...rocketmqtest.Config) *bundle {
	t.Helper()
	b := &bundle{T: t, server: rocketmqtest.RunT(t, config...), group: "group-" + uuid.NewString(), handled: map[string]int{}, order: map[int][]int64{}, changed: make(chan struct{})}
	b.sender = &network{names: b.server.Addr(), address: b.server.BrokerAddr()}
	t.Cleanup(b.sender.close)
	_, err := b.sender.call(t.Context(), &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": topic, "defaultTopic": "TBW102", "readQueueNums": strconv.Itoa(queues), "writeQueueNums": strconv.Itoa(queues), "perm": "6", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// joined is a member, and how it leaves.
type joined struct {
	*groupmember.Member
	leave func()
}

func (b *bundle) join(edit func(*groupmember.Config)) joined {
	b.Helper()
	n := &network{names: b.server.Addr(), address: b.server.BrokerAddr(), group: b.group, id: "member-" + uuid.NewString()}
	config := groupmember.Config{
		Network: n, Group: b.group, ID: n.id, Topics: []string{topic}, Slots: make(chan struct{}, 64), Handle: b.handle, Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&config)
	}
	m := groupmember.New(config)
	n.changed = m.Rebalance
	if _, err := n.connection(b.Context()); err != nil {
		b.Fatal(err)
	}
	m.Start()
	var once sync.Once
	leave := func() {
		once.Do(func() {
			if err := m.Stop(context.Background()); err != nil {
				b.Error(err)
			}
			n.close()
		})
	}
	b.Cleanup(leave)
	return joined{m, leave}
}

func (b *bundle) handle(_ context.Context, _ <-chan struct{}, m groupmember.Message) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.handled[string(m.Body)]++
	b.order[m.ID] = append(b.order[m.ID], m.QueueOffset)
	close(b.changed)
	b.changed = make(chan struct{})
	return true
}

func (b *bundle) send(queue int, body string) {
	b.Helper()
	poll.Succeeds(b, time.Minute, func() error { // the broker may be away
		_, err := b.sender.call(b.Context(), &remoting.Command{Code: remoting.SendMessage, Body: []byte(body), Ext: map[string]string{
			"producerGroup": "p", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": strconv.Itoa(queue), "sysFlag": "0",
			"bornTimestamp": strconv.FormatInt(time.Now().UnixMilli(), 10), "flag": "0", "properties": "UNIQ_KEY\x01" + uuid.NewString() + "\x02",
			"reconsumeTimes": "0", "unitMode": "false", "maxReconsumeTimes": "0", "batch": "false",
		}})
		return err
	})
}

// place stores an offset of the group.
func (b *bundle) place(offset string) {
	b.Helper()
	if _, err := b.sender.call(b.Context(), &remoting.Command{Code: remoting.UpdateConsumerOffset, Ext: map[string]string{
		"consumerGroup": b.group, "topic": topic, "queueId": "0", "commitOffset": offset,
	}}); err != nil {
		b.Fatal(err)
	}
}

// await waits until all of n messages were handled.
func (b *bundle) await(n int) {
	b.Helper()
	late := time.After(30 * time.Second)
	for {
		b.mu.Lock()
		have, changed := len(b.handled), b.changed
		b.mu.Unlock()
		if have == n {
			return
		}
		select {
		case <-changed:
		case <-late:
			b.Fatalf("%d of %d messages were handled", have, n)
		}
	}
}

func TestEachMessageIsHandled(t *testing.T) {
	t.Parallel()
	b := setup(t, 8)
	for i := range 100 {
		b.send(i%8, fmt.Sprint(i))
	}
	first := b.join(nil)
	b.await(100)
	second := b.join(nil)
	poll.Until(t, "each member has half of the queues", func() bool { return len(first.Queues()) == 4 && len(second.Queues()) == 4 })
	for i := range 400 {
		b.send(i%8, fmt.Sprint(100+i))
	}
	b.await(500)
	if err := second.Err(); err != nil {
		t.Error(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for body, n := range b.handled {
		if n != 1 {
			t.Errorf("message %s was handled %d times", body, n)
		}
	}
}

// A queue whose messages are handled when its reader stops goes on behind them.
func TestStopStoresTheOffset(t *testing.T) {
	t.Parallel()
	b := setup(t, 2)
	for i := range 20 {
		b.send(i%2, fmt.Sprint(i))
	}
	m := b.join(nil)
	b.await(20)
	m.leave()
	b.send(0, "20")
	b.join(nil)
	b.await(21)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.handled["0"]; n != 1 {
		t.Errorf("the first message was handled %d times", n)
	}
}

// In a serial group the messages of a queue are handled in order, one at a time, whoever joins and leaves.
func TestSerialKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, 3)
	serial := func(c *groupmember.Config) { c.Serial = true }
	first := b.join(serial)
	for i := range 60 {
		b.send(i%3, fmt.Sprint(i))
		if i == 20 {
			b.join(serial)
		}
		if i == 40 {
			first.leave()
		}
	}
	b.await(60)
	b.mu.Lock()
	defer b.mu.Unlock()
	for q, offsets := range b.order {
		highest := int64(-1)
		for _, o := range offsets {
			if o > highest+1 {
				t.Errorf("queue %d: offset %d after %d", q, o, highest)
			}
			highest = max(highest, o)
		}
	}
}

// While the broker is away nothing is lost, and when it is back reading goes on at once.
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	b := setup(t, 4)
	m := b.join(nil)
	for i := range 40 {
		b.send(i%4, fmt.Sprint(i))
	}
	b.await(40)
	for round := range 3 {
		b.server.Stop(rocketmqtest.LoseNothing)
		poll.Until(t, "the member reports the outage", func() bool { return m.Err() != nil })
		if err := b.server.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		b.send(round%4, fmt.Sprint(40+round))
		b.await(41 + round)
		t.Logf("handled %v after the return", time.Since(began))
	}
}

// A queue has lost all its messages. The group steps back at the broker before the member pulls what takes their places.
func TestGroupStepsBackBeforeItGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	b.join(nil)
	for i := range 2 {
		b.send(0, fmt.Sprint(i))
	}
	b.await(2)
	pulls := make(chan bool, 100) // from the beginning, after the loss: whether the offset was stored
	var lost, stored atomic.Bool
	defer b.server.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		switch {
		case !lost.Load():
		case r.Name == "UPDATE_CONSUMER_OFFSET" && r.Ext["commitOffset"] == "0":
			stored.Store(true)
		case r.Name == "PULL_MESSAGE" && r.Ext["queueOffset"] == "0":
			pulls <- stored.Load()
		}
		return rocketmqtest.Pass
	})()
	lost.Store(true)
	b.server.Restart(rocketmqtest.LoseUnflushed)
	select {
	case stored := <-pulls:
		if !stored {
			t.Error("the member has pulled before")
		}
	case <-time.After(time.Minute):
		t.Error("the member doesn't step back")
	}
}

// A new master may have no offset of the group. It is told also where the group doesn't move: while its handlers hang, and where it is at the
// beginning, for a group that begins at the newest message would begin there again, and pass over what is not handled.
func TestNewMasterIsToldTheOffset(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]int{"handlers hang": 3, "nothing has come": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, 1, rocketmqtest.Config{OffsetFlushInterval: time.Hour})
			offset := func() string {
				answer, _ := b.sender.call(t.Context(), &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: map[string]string{
					"consumerGroup": b.group, "topic": topic, "queueId": "0", "setZeroIfNotFound": "false",
				}})
				if answer == nil {
					return "none"
				}
				return answer.Ext["offset"]
			}
			for i := range sent {
				b.send(0, fmt.Sprint(i))
			}
			hang := make(chan struct{})
			want := "1"
			if sent == 0 {
				want = "0"
				b.join(nil).leave() // the broker makes the group
				b.place("0")
			}
			m := b.join(func(c *groupmember.Config) {
				handle := c.Handle
				c.MaxBuffered = 1
				c.Handle = func(ctx context.Context, stop <-chan struct{}, m groupmember.Message) bool {
					if m.QueueOffset > 0 {
						<-hang
					}
					return handle(ctx, stop, m)
				}
			})
			t.Cleanup(func() { close(hang) }) // before the member stops
			poll.Until(t, "the offset is stored", func() bool { return offset() == want && len(m.Positions()) == 1 })
			b.server.Stop(rocketmqtest.LoseMemory)
			if err := b.server.Start(); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "the broker that is back is told the offset", func() bool { return offset() == want })
		})
	}
}

// The member doesn't take more than it may hold.
func TestFlowControl(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	for i := range 100 {
		b.send(0, fmt.Sprint(i))
	}
	release := make(chan struct{})
	var mu sync.Mutex
	running, most := 0, 0
	b.join(func(c *groupmember.Config) {
		c.MaxBuffered, c.Slots = 10, make(chan struct{}, 100)
		handle := c.Handle
		c.Handle = func(ctx context.Context, stop <-chan struct{}, m groupmember.Message) bool {
			mu.Lock()
			running++
			most = max(most, running)
			full := running == 10
			mu.Unlock()
			if full {
				close(release)
			}
			<-release
			mu.Lock()
			running--
			mu.Unlock()
			return handle(ctx, stop, m)
		}
	})
	b.await(100)
	if most > 10 {
		t.Errorf("%d messages at once", most)
	}
}

// A broker handles pulls and requests that store an offset in parallel. A pull that it handles late undoes nothing: what was handled
// before the stop isn't handled again.
func TestLatePullDoesntUndoTheStoredOffset(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	release, held := make(chan struct{}), make(chan struct{}, 100)
	var pulls atomic.Int32
	defer b.server.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name != "PULL_MESSAGE" || pulls.Add(1) == 1 {
			return rocketmqtest.Pass
		}
		held <- struct{}{}
		return rocketmqtest.HoldUntil(release)
	})()
	for i := range 4 {
		b.send(0, fmt.Sprint(i))
	}
	m := b.join(nil)
	b.await(4)
	<-held // with what the member had settled when it was sent
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(release)
	offset := func() string {
		answer, err := b.sender.call(t.Context(), &remoting.Command{Code: remoting.QueryConsumerOffset, Ext: map[string]string{
			"consumerGroup": b.group, "topic": topic, "queueId": "0", "setZeroIfNotFound": "false",
		}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Ext["offset"]
	}
	b.send(0, "4") // by now the pull was handled: it holds for its answer
	if got := offset(); got != "4" {
		t.Errorf("the offset is %s after the pull, want 4", got)
	}
	m.leave()
	b.join(nil)
	b.await(5)
	b.mu.Lock()
	defer b.mu.Unlock()
	for body, n := range b.handled {
		if n != 1 {
			t.Errorf("message %s was handled %d times", body, n)
		}
	}
}

// A lock that the broker grants late is released all the same: the queue's next reader gets it at once.
func TestLateLockIsReleased(t *testing.T) {
	t.Parallel()
	b := setup(t, 1)
	release, held := make(chan struct{}), make(chan struct{}, 10)
	remove := b.server.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Name != "LOCK_BATCH_MQ" {
			return rocketmqtest.Pass
		}
		held <- struct{}{}
		return rocketmqtest.HoldUntil(release)
	})
	serial := func(c *groupmember.Config) { c.Serial = true }
	m := b.join(serial)
	<-held
	stopped := make(chan error, 1)
	go func() { stopped <- m.Stop(t.Context()) }()
	poll.Until(t, "the member gives up its queue", func() bool { return len(m.Queues()) == 0 })
	close(release)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	remove()
	m.leave()
	b.send(0, "0")
	began := time.Now()
	b.join(serial)
	b.await(1)
	if took := time.Since(began); took > 20*time.Second { // a lock that nobody releases expires after a minute
		t.Errorf("the next reader waited for %v", took)
	}
}
