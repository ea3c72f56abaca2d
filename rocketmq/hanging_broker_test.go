package rocketmq_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// Of two brokers one freezes. Consumers that start a moment later, before anybody has noticed, read from the other.
func TestStartWhileABrokerHangs(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	mq.CreateTopic("orders", 2)
	frozen := newRelay(t, mq.BrokerAddr())
	address := twoBrokers(t, map[string]string{"broker-a": frozen.address, "broker-b": mq.BrokerAddr()})
	ctx := deadline(t, 3*time.Minute) // each 20 s the client asks one of both, by chance, who is in the group
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
	eventually(t, 10*time.Second, func() error { // the topic's queues are in turn on one and on the other
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

// twoBrokers is a name server that lists these brokers, with two queues of each topic on each. It returns its address.
func twoBrokers(t *testing.T, brokers map[string]string) string {
	t.Helper()
	var queues []map[string]any
	var data []remoting.BrokerData
	table := map[string]remoting.BrokerData{}
	for name, address := range brokers {
		b := remoting.BrokerData{Cluster: "DefaultCluster", Name: name, Addresses: map[string]string{"0": address}}
		data, table[name] = append(data, b), b
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
