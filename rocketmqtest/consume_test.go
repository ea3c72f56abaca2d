package rocketmqtest_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// lock requests the locks of queues and returns those that it gets.
func (w *wire) lock(client string, queues ...int) string {
	w.t.Helper()
	return string(w.call(remoting.LockQueues, nil, lockBody(client, queues...)).Body)
}

func lockBody(client string, queues ...int) string {
	var set []string
	for _, q := range queues {
		set = append(set, fmt.Sprintf(`{"topic":%q,"brokerName":"broker-a","queueId":%d}`, wireTopic, q))
	}
	return fmt.Sprintf(`{"consumerGroup":"consumers","clientId":%q,"mqSet":[%s]}`, client, strings.Join(set, ","))
}

const (
	noLock    = `{"lockOKMQSet":[]}`
	firstLock = `{"lockOKMQSet":[{"topic":"topic","brokerName":"broker-a","queueId":0}]}`
)

func TestLockIsHeldByOne(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	want(t, "locks", []string{w.lock("one", 0), w.lock("one", 0), w.lock("two", 0)}, firstLock, firstLock, noLock)
	w.mq.FastForward(time.Hour) // who holds it lives in the machine's time
	want(t, "locks later", []string{w.lock("two", 0)}, noLock)
	w.call(remoting.UnlockQueues, nil, lockBody("two", 0))
	want(t, "locks after another's unlock", []string{w.lock("two", 0)}, noLock)
	w.call(remoting.UnlockQueues, nil, lockBody("one", 0))
	want(t, "locks after the unlock", []string{w.lock("two", 0), w.lock("one", 0)}, firstLock, noLock)
}

func TestLockExpires(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{LockExpiry: 50 * time.Millisecond})
	begin := time.Now()
	w.lock("one", 0)
	for w.lock("two", 0) != firstLock {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("not in 10s")
		}
	}
	if d := time.Since(begin); d < 50*time.Millisecond {
		t.Errorf("expired after %v", d)
	}
}

// back sends a message back that was read.
func (w *wire) back(r *remoting.Record, more ...string) *remoting.Command {
	w.t.Helper()
	ext := fields{"group": "consumers", "originTopic": r.Topic, "originMsgId": "", "delayLevel": "0", "unitMode": "false", "maxReconsumeTimes": "16", "offset": strconv.FormatInt(r.CommitLog, 10)}
	return w.call(remoting.SendMessageBack, ext.with(more...), "")
}

func TestEachRetryWaitsLonger(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	w.send("order")
	last := w.read(wireTopic, 1)[0]
	const retries, dead = "%RETRY%consumers", "%DLQ%consumers"
	for i, delay := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute} {
		if a := w.back(last, "maxReconsumeTimes", "4"); a.Code != remoting.Success {
			t.Fatal(a.Err())
		}
		w.mq.FastForward(delay - time.Second)
		if n := len(w.read(retries, 0)); n != i {
			t.Errorf("retry %d came early", i+1)
		}
		w.mq.FastForward(time.Second)
		all := w.read(retries, 0)
		if len(all) != i+1 {
			t.Fatalf("%d retries after %v, want %d", len(all), delay, i+1)
		}
		last = all[i]
		if last.Reconsumed != i+1 || last.Properties["RETRY_TOPIC"] != wireTopic || string(last.Body) != "order" {
			t.Errorf("retry %d: reconsumed %d, %v", i+1, last.Reconsumed, last.Properties)
		}
	}
	w.back(last, "maxReconsumeTimes", "4")
	letters := w.read(dead, 0)
	want(t, "dead letters", bodies(letters), "order")
	if id := letters[0].Properties["ORIGIN_MESSAGE_ID"]; id != last.Properties["ORIGIN_MESSAGE_ID"] {
		t.Errorf("origin %s, want that of the retries", id)
	}
}

func TestSendToRetryTopic(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	send := func(body, reconsumed string) {
		t.Helper()
		ext := sendRequest("%RETRY%consumers", w.mq.Clock().Now()).with("queueId", "0", "reconsumeTimes", reconsumed, "maxReconsumeTimes", "3")
		if a := w.call(remoting.SendMessage, ext, body); a.Code != remoting.Success {
			t.Fatal(a.Err())
		}
	}
	send("third", "3")
	send("fourth", "4")
	w.lock("one", 0)
	send("ordered", "0")
	want(t, "retries", bodies(w.read("%RETRY%consumers", 0)), "third")
	want(t, "dead letters", bodies(w.read("%DLQ%consumers", 0)), "fourth", "ordered")
}

func TestGroupIsNotifiedOfMembers(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t)
	heard := make(chan string, 100)
	member := func(name string) *remoting.Conn {
		conn, err := remoting.Dial(t.Context(), mq.BrokerAddr(), remoting.Credentials{}, func(_ *remoting.Conn, r *remoting.Command) *remoting.Command {
			if r.Code == remoting.ConsumersChanged && r.Oneway() && r.Ext["consumerGroup"] == "consumers" {
				heard <- name
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		if _, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.Heartbeat, Body: fmt.Appendf(nil, `{"clientID":%q,"consumerDataSet":[{"groupName":"consumers","subscriptionDataSet":[]}]}`, name)}); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	next := func(n int) map[string]int {
		t.Helper()
		got := map[string]int{}
		for range n {
			select {
			case name := <-heard:
				got[name]++
			case <-time.After(10 * time.Second):
				t.Fatalf("heard %v, want %d", got, n)
			}
		}
		return got
	}
	one := member("one")
	next(1)
	two := member("two")
	if got := next(2); got["one"] != 1 || got["two"] != 1 {
		t.Errorf("after the second came: %v", got)
	}
	two.Close() // without a word
	if got := next(1); got["one"] != 1 {
		t.Errorf("after the second had gone: %v", got)
	}
	a, err := one.Call(t.Context(), &remoting.Command{Code: remoting.ConsumerList, Ext: fields{"consumerGroup": "consumers"}})
	if err != nil || string(a.Body) != `{"consumerIdList":["one"]}` {
		t.Errorf("members %s, %v", a.Body, err)
	}
}

func TestPullWaits(t *testing.T) {
	t.Parallel()
	w := run(t, rocketmqtest.Config{})
	ext := fields{"consumerGroup": "consumers", "topic": wireTopic, "queueId": "1", "queueOffset": "0", "maxMsgNums": "32",
		"sysFlag": "6", "commitOffset": "0", "suspendTimeoutMillis": "20000", "subscription": "b", "subVersion": "0", "expressionType": "TAG"}
	other, waits := connect(t, w.mq), make(chan *remoting.Command, 1)
	go func() {
		a, _ := other.conn.Call(t.Context(), &remoting.Command{Code: remoting.PullMessage, Ext: ext})
		waits <- a
	}()
	for late := time.Now().Add(10 * time.Second); !strings.Contains(string(w.call(remoting.AllGroups, nil, "").Body), "consumers"); {
		if time.Now().After(late) {
			t.Fatal("the pull made no group in 10s")
		}
	}
	w.send("no", "TAGS", "a")
	w.send("yes", "TAGS", "b")
	a := <-waits
	if a == nil {
		t.Fatal("no response")
	}
	records, err := remoting.DecodeRecords(a.Body)
	if err != nil || a.Code != remoting.Success {
		t.Fatal(a.Err(), err)
	}
	want(t, "what the pull waited for", bodies(records), "yes")
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Credentials: map[string]string{"app": "secret"}})
	mq.CreateTopic(wireTopic, 1)
	call := func(address string, keys remoting.Credentials, code remoting.Code, ext fields) *remoting.Command {
		t.Helper()
		conn, err := remoting.Dial(t.Context(), address, keys, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		a, err := conn.Call(t.Context(), &remoting.Command{Code: code, Ext: ext})
		if a == nil {
			t.Fatal(err)
		}
		return a
	}
	for _, c := range []struct {
		keys   remoting.Credentials
		remark string
	}{
		{remoting.Credentials{}, "username cannot be null."},
		{remoting.Credentials{AccessKey: "nobody", SecretKey: "secret"}, "User:nobody is not found."},
		{remoting.Credentials{AccessKey: "app", SecretKey: "wrong"}, "check signature failed."},
		{remoting.Credentials{AccessKey: "app", SecretKey: "secret"}, ""},
	} {
		a := call(mq.BrokerAddr(), c.keys, remoting.MaxOffset, fields{"topic": wireTopic, "queueId": "0"})
		if (a.Code == remoting.NoPermission) != (c.remark != "") || a.Remark != c.remark {
			t.Errorf("%s: response %d %q, want %q", c.keys.AccessKey, a.Code, a.Remark, c.remark)
		}
	}
	if a := call(mq.Addr(), remoting.Credentials{}, remoting.RouteOfTopic, fields{"topic": wireTopic}); a.Code != remoting.Success {
		t.Errorf("the name server requires credentials: %v", a.Err())
	}
}
