package rocketmqtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

func TestDumpShowsEverything(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.call(remoting.Heartbeat, fields{}, `{"clientID":"c","consumerDataSet":[{"groupName":"consumers","subscriptionDataSet":[{"topic":"topic","subString":"paid"}]}]}`)
	w.call(remoting.LockQueues, fields{}, `{"consumerGroup":"consumers","clientId":"c","mqSet":[{"topic":"topic","brokerName":"broker-a","queueId":1}]}`)
	w.send("plain", "UNIQ_KEY", "id", "TAGS", "paid", "KEYS", "k", "SHARDING_KEY", "s")
	w.half("half")
	w.send("timer", "TIMER_DELAY_MS", "60000")
	w.send("delayed", "DELAY", "2")

	d := w.mq.Dump()
	if m := w.mq.Messages(wireTopic); len(m) != 1 || m[0].ID != "id" || m[0].Tag != "paid" || m[0].Keys != "k" || m[0].ShardingKey != "s" || string(m[0].Body) != "plain" {
		t.Errorf("messages: %+v", m)
	}
	if h := d.Halves; len(h) != 1 || h[0].Topic != wireTopic || h[0].Queue != 1 || h[0].Group != wireGroup || h[0].Checks != 0 || string(h[0].Body) != "half" {
		t.Errorf("half messages: %+v", h)
	}
	if tm := d.Timers; len(tm) != 2 || string(tm[0].Body) != "delayed" || tm[0].Level != 2 || string(tm[1].Body) != "timer" || tm[1].Topic != wireTopic || tm[1].Due.Before(d.Now.Add(59*time.Second)) {
		t.Errorf("timers: %+v", tm)
	}
	if g := d.Groups; len(g) != 1 || len(g[0].Members) != 1 || g[0].Members[0].Subscriptions[wireTopic] != "paid" || g[0].Lag != 1 || g[0].Queues[1].Locked != "c" || w.mq.Lag("consumers") != 1 {
		t.Errorf("groups: %+v", g)
	}
	for _, part := range []string{"0 id=id tag=paid keys=k sharding=s", "half of producers for topic/1", "delayed (level 2) for topic/1", "timer for topic/1", "group consumers: lag 1", "locked by c"} {
		if !strings.Contains(d.String(), part) {
			t.Errorf("no %q in\n%v", part, d)
		}
	}
	var again rocketmqtest.Dump
	if err := json.Unmarshal([]byte(d.JSON()), &again); err != nil || !reflect.DeepEqual(again.Halves[0].Properties, d.Halves[0].Properties) {
		t.Errorf("%v: %s", err, d.JSON())
	}
}

// TestAwaitReturnsAtTheWantedStatus waits for a status, and reports the last one when its context ends.
func TestAwaitReturnsAtTheWantedStatus(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.call(remoting.Heartbeat, fields{}, `{"clientID":"c","consumerDataSet":[{"groupName":"consumers","subscriptionDataSet":[{"topic":"topic","subString":"*"}]}]}`)
	half := w.half("m")
	w.send("timer", "TIMER_DELAY_MS", "60000")
	if s := w.mq.Status(); s.Settled() || s.Halves != 1 || s.Timers != 1 || !s.NextDue.After(w.mq.Clock().Now()) {
		t.Errorf("got %v", s)
	}
	settled := make(chan error, 1)
	go func() { settled <- w.mq.Await(t.Context(), rocketmqtest.Status.Settled) }()
	w.end(half, remoting.TransactionCommit)
	w.call(remoting.UpdateConsumerOffset, fields{"consumerGroup": "consumers", "topic": wireTopic, "queueId": "1", "commitOffset": "1"}, "")
	if err := <-settled; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.mq.Await(ctx, func(s rocketmqtest.Status) bool { return s.Timers == 0 }); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "1 timers") {
		t.Errorf("got %v", err)
	}
	w.mq.FastForward(2 * time.Minute)
	if err := w.mq.Await(t.Context(), func(s rocketmqtest.Status) bool { return s.Timers == 0 && s.NextDue.IsZero() }); err != nil {
		t.Error(err)
	}
}

func TestGroupIsIdleAtTheEndOfItsQueues(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.mq.CreateTopic(wireTopic, 2)
	idle := func() bool { return w.mq.Status().Groups["consumers"].Idle }
	w.call(remoting.Heartbeat, fields{}, `{"clientID":"c","consumerDataSet":[{"groupName":"consumers","subscriptionDataSet":[{"topic":"topic","subString":"*"}]}]}`)
	if idle() {
		t.Error("idle without a pull")
	}
	for _, queue := range []string{"0", "1"} {
		go w.conn.Call(t.Context(), &remoting.Command{Code: remoting.PullMessage, Ext: fields{
			"consumerGroup": "consumers", "topic": wireTopic, "queueId": queue, "queueOffset": "0", "maxMsgNums": "32",
			"sysFlag": "6", "commitOffset": "0", "suspendTimeoutMillis": "20000", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}})
	}
	until(t, w.mq, idle)
	w.send("m")
	if idle() {
		t.Error("idle, with a message that no pull waits behind")
	}
}
