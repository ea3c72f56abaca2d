package rocketmqtest

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

func TestCloseLeavesNoGoroutines(t *testing.T) {
	for i := range 100 {
		s, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			conn, err := remoting.Dial(t.Context(), s.BrokerAddr(), remoting.Credentials{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
		}
		s.Close()
		s.Close()
	}
	buffer := make([]byte, 1<<20)
	if stacks := string(buffer[:runtime.Stack(buffer, true)]); strings.Contains(stacks, "keepTime") || strings.Contains(stacks, "writeAll") {
		t.Errorf("goroutines are left:\n%s", stacks)
	}
}

// TestMaxBytes sends ten times what may be kept.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	const most = 1 << 20
	s := RunT(t, Config{MaxBytes: most, MaxMessageSize: 64 << 10})
	s.CreateTopic("topic", 1)
	body := make([]byte, 32<<10)
	for range 10 * most / len(body) {
		s.mu.Lock()
		_, err := s.put(s.topics["topic"], &remoting.Record{Body: body})
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := s.Dump()
	q := d.Topics[0].Queues[0]
	if d.Broker.Bytes > most || d.Broker.Bytes < most/2 || q.Max != 320 || q.Min < 288 || q.Messages[0].Offset != q.Min {
		t.Errorf("%d bytes, offsets %d to %d", d.Broker.Bytes, q.Min, q.Max)
	}
	held := 0
	for _, e := range s.topics["topic"].queues[0].entries {
		held += len(e.encoded)
	}
	if held != d.Broker.Bytes {
		t.Errorf("%d bytes held, %d counted", held, d.Broker.Bytes)
	}
}

// TestClosedConnectionsAreRemoved looks for what grows with the number of connections.
func TestClosedConnectionsAreRemoved(t *testing.T) {
	t.Parallel()
	s := RunT(t)
	s.CreateTopic("topic", 1)
	for i := range 1000 {
		conn, err := remoting.Dial(t.Context(), s.BrokerAddr(), remoting.Credentials{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"clientID":"c%d","producerDataSet":[{"groupName":"p%d"}],"consumerDataSet":[{"groupName":"g"}]}`, i, i)
		if _, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.Heartbeat, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		if err := conn.Notify(&remoting.Command{Code: remoting.PullMessage, Ext: map[string]string{
			"consumerGroup": "g", "topic": "topic", "queueId": "0", "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "2", "commitOffset": "0",
			"suspendTimeoutMillis": "20000", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if err := s.Await(t.Context(), func(status Status) bool { return status.Groups["g"].Members == 0 && len(s.broker.all()) == 0 }); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.producers) + len(s.topics["topic"].queues[0].polls) + len(s.groups["g"].members); n != 0 {
		t.Errorf("%d producers, %d polls, %d members are left", len(s.producers), len(s.topics["topic"].queues[0].polls), len(s.groups["g"].members))
	}
}
