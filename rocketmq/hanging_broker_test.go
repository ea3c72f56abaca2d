package rocketmq_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestStartWhileABrokerHangs freezes one of two brokers. A consumer that starts a moment later, before the client has
// noticed, reads from the other broker.
func TestStartWhileABrokerHangs(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("orders", 2)
	frozen := newRelay(t, mq.BrokerAddr())
	address := twoBrokers(t, frozen.address, mq.BrokerAddr())
	ctx := deadline(t, 3*time.Minute)
	c := open(t, func(c *rocketmq.Config) { c.NameServers = []string{address} })
	frozen.hang(true)
	t.Cleanup(func() { frozen.hang(false) }) // before the client closes
	start := time.Now()
	got := make(chan struct{}, 10)
	k, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{"orders"}}, func(context.Context, broker.Delivery) error {
		got <- struct{}{}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("subscribed in %v", time.Since(start))
	if took := time.Since(start); took > 9*time.Second {
		t.Errorf("subscribe took %v", took)
	}
	poll.Succeeds(t, 10*time.Second, func() error { // the topic's queues are in turn on one and on the other
		sending, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		r, err := c.Send(sending, broker.Message{Topic: "orders", Body: []byte("x")})
		if err == nil && r.Broker != "broker-b" {
			err = errors.New("sent to the broker that hangs")
		}
		return err
	})
	select {
	case <-got:
	case <-ctx.Done():
		t.Fatal("nothing came from the broker that answers")
	}
	stopping, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := k.Stop(stopping); err != nil {
		t.Error(err)
	}
}

// twoBrokers starts a name server that lists two brokers, broker-a at frozen and broker-b at answering, with two queues of
// the topic orders on each. It returns the name server's address.
//
// Every 20 s rocketmq-client-go requests the members of a consumer's group from one broker of the topic's route, chosen at
// random; a consumer whose request isn't answered reads nothing until the next. The route therefore lists broker-b 1000 times:
// the client chooses it, while it still knows, and sends heartbeats to, the broker that hangs.
func twoBrokers(t *testing.T, frozen, answering string) string {
	t.Helper()
	brokerData := func(name, address string) remoting.BrokerData {
		return remoting.BrokerData{Cluster: "DefaultCluster", Name: name, Addresses: map[string]string{"0": address}}
	}
	a, b := brokerData("broker-a", frozen), brokerData("broker-b", answering)
	table := map[string]remoting.BrokerData{a.Name: a, b.Name: b}
	data := append([]remoting.BrokerData{a}, slices.Repeat([]remoting.BrokerData{b}, 1000)...)
	var queues []map[string]any
	for name := range table {
		queues = append(queues, map[string]any{"brokerName": name, "readQueueNums": 2, "writeQueueNums": 2, "perm": 6, "topicSysFlag": 0})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conn := remoting.NewConn(nc, remoting.Credentials{}, func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
				var body any
				switch {
				case request.Code == remoting.ClusterInfo:
					body = map[string]any{"brokerAddrTable": table, "clusterAddrTable": map[string]any{}}
				case request.Code == remoting.RouteOfTopic && request.Ext["topic"] == "orders":
					body = map[string]any{"queueDatas": queues, "brokerDatas": data, "filterServerTable": map[string]any{}}
				default:
					return request.Answer(remoting.TopicNotExist, "no such topic")
				}
				answer := request.Answer(remoting.Success, "")
				answer.Body, _ = json.Marshal(body) // maps and strings
				return answer
			})
			t.Cleanup(conn.Close)
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}
