package rocketmq_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
)

// proxied is a RocketMQ behind a proxy.
type proxied struct {
	proxy, nameServer string
}

// startProxied returns the proxy that ROCKETFLOW_PROXY names, with the name server behind it in ROCKETFLOW_PROXY_NAMESRV, or starts an
// embedded one.
func startProxied(t *testing.T) proxied {
	t.Helper()
	if address := os.Getenv("ROCKETFLOW_PROXY"); address != "" {
		return proxied{address, os.Getenv("ROCKETFLOW_PROXY_NAMESRV")}
	}
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{
		Version: rocketmqtest.RocketMQ55, Proxy: true, MaxMessageSize: 2 << 20,
		TransactionTimeout: 500 * time.Millisecond, CheckInterval: 250 * time.Millisecond, CheckMax: 240,
	})
	return proxied{mq.ProxyAddr(), mq.Addr()}
}

// open opens a client that knows only the proxy.
func (p proxied) open(t *testing.T, change ...func(*rocketmq.Config)) *rocketmq.Client {
	t.Helper()
	return open(t, append([]func(*rocketmq.Config){func(c *rocketmq.Config) {
		c.NameServers, c.Profile, c.Transport = []string{p.proxy}, rocketmq.Proxy5, rocketmq.Own
	}}, change...)...)
}

// create creates topics past the proxy.
func (p proxied) create(t *testing.T, topics ...broker.Topic) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	operator := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{p.nameServer}, rocketmq.Own })
	if err := operator.CreateTopics(ctx, topics...); err != nil {
		t.Fatal(err)
	}
}

// TestConformanceThroughProxy: the suite, with what isn't possible through a proxy refused.
func TestConformanceThroughProxy(t *testing.T) {
	p := startProxied(t)
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver { return p.open(t) },
			Close: func(t *testing.T, d brokertest.Driver) {
				if err := d.(*rocketmq.Client).Close(context.Background()); err != nil {
					t.Error(err)
				}
			},
			CreateTopic:    func(t *testing.T, topic broker.Topic) { p.create(t, topic) },
			NoHalfMessages: true, OneType: true, BrokersByTopic: true,
		}
	})
}

// A client of Apache5 can't open a proxy, and rocketmq-client-go can't send through one: both are refused, with what to do.
func TestOpenRefusesWhatAProxyCannotDo(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	var field *rocketflow.FieldError
	_, err := rocketmq.Open(deadline(t, 20*time.Second), rocketmq.Config{NameServers: []string{p.proxy}, Service: "s", Transport: rocketmq.Own, AwaitBroker: true})
	if !errors.As(err, &field) || field.Field != "rocketmq.Config.Profile" {
		t.Errorf("Apache5: got %v, want an error that says that the profile may be wrong", err)
	}
	for _, c := range []struct {
		field  string
		change func(*rocketmq.Config)
	}{
		{"Transport", func(c *rocketmq.Config) { c.Transport = rocketmq.ClientGo }},
		{"TimerHorizon", func(c *rocketmq.Config) { c.TimerHorizon = time.Hour }},
	} {
		config := rocketmq.Config{NameServers: []string{p.proxy}, Service: "s", Profile: rocketmq.Proxy5, Transport: rocketmq.Own}
		c.change(&config)
		var field *rocketflow.FieldError
		if _, err := rocketmq.Open(deadline(t, 20*time.Second), config); !errors.As(err, &field) || field.Field != "rocketmq.Config."+c.field || !strings.Contains(field.Reason, "profile proxy5") {
			t.Errorf("%s: got %v, want a FieldError that names the profile", c.field, err)
		}
	}
}

// What a client can't do through a proxy says so, with the profile and the source, and without a request.
func TestClientRefusesWhatAProxyCannotDo(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	topic := unique("refused")
	p.create(t, broker.Topic{Name: topic})
	client, ctx := p.open(t), deadline(t, 20*time.Second)
	_, scheduled := client.Schedule(ctx, broker.Message{Topic: topic, Body: []byte("m")}, time.Now().Add(time.Minute))
	_, prepared := client.OpenTransactionProducer(ctx, "producers", nil)
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"create topics", client.CreateTopics(ctx, broker.Topic{Name: unique("other")}), broker.ErrUnauthorized},
		{"schedule", scheduled, broker.ErrNoTimers},
		{"cancel", client.Cancel(ctx, broker.Timer{MessageID: "id", Topic: topic, Broker: "broker-a", Due: time.Now().Add(time.Minute)}), broker.ErrNoTimers},
		{"half messages", prepared, broker.ErrNoHalfMessages},
	} {
		if !errors.Is(c.got, c.want) || !errors.Is(c.got, broker.ErrRejected) || !strings.Contains(c.got.Error(), "profile proxy5") {
			t.Errorf("%s: got %v, want %v that names the profile", c.what, c.got, c.want)
		}
	}
	if err := client.VerifyTopics(ctx, topic); err != nil {
		t.Error(err)
	}
	if err := client.VerifyTopics(ctx, unique("missing")); !errors.Is(err, broker.ErrTopicNotFound) || !strings.Contains(err.Error(), "rocketflow topics") {
		t.Errorf("a missing topic: got %v", err)
	}
	if err := client.Ping(ctx); err != nil {
		t.Error(err)
	}
}

// Messages with and without a sharding key share a topic of type NORMAL, alone and in groups of one and of many, and clients of all profiles
// read the key, also where it is sent in a property of our own.
func TestShardingKeysThroughAProxy(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	for _, profile := range []rocketmq.Profile{rocketmq.Proxy5, rocketmq.TencentTDMQ} {
		t.Run(profile.String(), func(t *testing.T) {
			t.Parallel()
			testShardingKeys(t, p, profile)
		})
	}
}

func testShardingKeys(t *testing.T, p proxied, profile rocketmq.Profile) {
	topic := unique("keys")
	p.create(t, broker.Topic{Name: topic, Queues: 4})
	client, ctx := p.open(t, func(c *rocketmq.Config) { c.Profile = profile }), deadline(t, 60*time.Second)
	message := func(key, body string) broker.Message {
		return broker.Message{Topic: topic, ShardingKey: key, Body: []byte(body)}
	}
	receipt, err := client.Send(ctx, message("key", "alone"))
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range [][]broker.Message{{message("key", "one")}, {message("key", "two"), message("", "three"), message("key", "four")}} {
		if errs := client.SendGroup(ctx, group); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	direct := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{p.nameServer}, rocketmq.Own })
	type got struct{ body, key string }
	for name, reader := range map[string]*rocketmq.Client{"proxy": client, "direct": direct} {
		came := make(chan got, 100)
		consumer, err := reader.Subscribe(ctx, broker.Subscription{Group: unique("keys"), Topics: []string{topic}}, func(_ context.Context, d broker.Delivery) error {
			if d.ShardingKey == "key" && d.Queue != receipt.Queue {
				t.Errorf("%s: %s is in queue %d, want %d", name, d.Body, d.Queue, receipt.Queue)
			}
			if d.Properties[rocketmq.ShardingKeyProperty] != "" {
				t.Errorf("%s: the driver's own property is delivered", name)
			}
			came <- got{string(d.Body), d.ShardingKey}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := map[got]bool{{"alone", "key"}: true, {"one", "key"}: true, {"two", "key"}: true, {"three", ""}: true, {"four", "key"}: true}
		for len(want) > 0 {
			select {
			case g := <-came:
				if !want[g] {
					t.Errorf("%s: got %v", name, g)
				}
				delete(want, g)
			case <-ctx.Done():
				t.Fatalf("%s: missing %v", name, want)
			}
		}
		if err := consumer.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A broker that restarts behind a proxy is an outage and nothing more: sends and consumers go on by themselves.
func TestBrokerRestartsBehindAProxy(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ55, Proxy: true})
	mq.CreateTopic("topic", 2)
	c := proxied{proxy: mq.ProxyAddr()}.open(t, func(c *rocketmq.Config) { c.SendTimeout = time.Second })
	came, _ := collect(t, c, "group", "topic")
	for _, body := range []string{"first", "second"} {
		poll.Succeeds(t, 20*time.Second, func() error {
			_, err := c.Send(t.Context(), broker.Message{Topic: "topic", Body: []byte(body)})
			return err
		})
		for string(next(t, came).Body) != body {
		}
		mq.Stop(rocketmqtest.LoseNothing)
		if _, err := c.Send(t.Context(), broker.Message{Topic: "topic", Body: []byte("lost")}); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("while the broker is away: got %v", err)
		}
		if err := mq.Start(); err != nil {
			t.Fatal(err)
		}
	}
}

// A proxy that requires credentials gets them with every request, and refuses wrong ones when the first topic is used.
func TestCredentialsAtAProxy(t *testing.T) {
	t.Parallel()
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: rocketmqtest.RocketMQ55, Proxy: true, Credentials: map[string]string{"user": "secret"}})
	mq.CreateTopic("topic", 1)
	for secret, want := range map[string]error{"secret": nil, "wrong": broker.ErrUnauthorized} {
		c := proxied{proxy: mq.ProxyAddr()}.open(t, func(c *rocketmq.Config) { c.AccessKey, c.SecretKey = "user", secret })
		_, sent := c.Send(t.Context(), broker.Message{Topic: "topic", Body: []byte("m")})
		for what, err := range map[string]error{"verify": c.VerifyTopics(t.Context(), "topic"), "send": sent} {
			if !errors.Is(err, want) {
				t.Errorf("%s with the secret %s: got %v, want %v", what, secret, err, want)
			}
		}
	}
}

// TestProxyAnswers is a list of raw requests whose responses by the embedded proxy and by RocketMQ's own are the same.
func TestProxyAnswers(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	normal, fifo, delay, halves := unique("normal"), unique("fifo"), unique("delay"), unique("halves")
	p.create(t, broker.Topic{Name: normal, Queues: 1}, broker.Topic{Name: fifo, Queues: 1, Kind: broker.FIFO},
		broker.Topic{Name: delay, Queues: 1, Kind: broker.Delay}, broker.Topic{Name: halves, Queues: 1, Kind: broker.Transaction})
	ctx := deadline(t, 60*time.Second)
	conn, err := remoting.Dial(ctx, p.proxy, remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	send := func(topic string, properties ...string) *remoting.Command {
		props := map[string]string{"UNIQ_KEY": unique("key")}
		for i := 0; i < len(properties); i += 2 {
			props[properties[i]] = properties[i+1]
		}
		flag := "0"
		if props["TRAN_MSG"] != "" {
			flag = "4"
		}
		return &remoting.Command{Code: remoting.SendMessageV2, Body: []byte("m"), Ext: map[string]string{
			"a": "producers", "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": flag, "g": strconv.FormatInt(time.Now().UnixMilli(), 10), "h": "0",
			"i": remoting.EncodeProperties(props), "j": "0", "k": "false", "l": "0", "m": "false", "n": "broker-a",
		}}
	}
	without := func(c *remoting.Command, field string) *remoting.Command {
		delete(c.Ext, field)
		return c
	}
	offsets := func(code remoting.Code) *remoting.Command {
		return &remoting.Command{Code: code, Ext: map[string]string{
			"consumerGroup": "group", "topic": normal, "queueId": "0", "commitOffset": "0", "timestamp": "0", "bname": "broker-a",
			"queueOffset": "0", "maxMsgNums": "1", "sysFlag": "4", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
		}}
	}
	in := strconv.FormatInt(time.Now().Add(time.Second).UnixMilli(), 10)
	for _, c := range []struct {
		name    string
		request *remoting.Command
		code    remoting.Code
		remark  string // a part of it
	}{
		{"list of brokers", &remoting.Command{Code: remoting.ClusterInfo}, remoting.NotSupported, "request type 106 not supported"},
		{"create a topic", &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{"topic": "x"}}, remoting.NotSupported, "request type 17 not supported"},
		{"query messages", &remoting.Command{Code: remoting.QueryMessage, Ext: map[string]string{"topic": normal}}, remoting.NotSupported, "request type 12 not supported"},
		{"route", &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": normal}}, remoting.Success, ""},
		{"route of no topic", &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": unique("none")}}, remoting.TopicNotExist, ""},

		{"send without a broker", without(send(normal), "n"), remoting.VersionNotSupported, "bname"},
		{"pull without a broker", without(offsets(remoting.PullMessage), "bname"), remoting.VersionNotSupported, "bname"},
		{"offset without a broker", without(offsets(remoting.QueryConsumerOffset), "bname"), remoting.VersionNotSupported, "bname"},
		{"search without a broker", without(offsets(remoting.SearchOffset), "bname"), remoting.VersionNotSupported, "bname"},
		{"search", offsets(remoting.SearchOffset), remoting.Success, ""},

		{"plain to normal", send(normal), remoting.Success, ""},
		{"own key to normal", send(normal, rocketmq.ShardingKeyProperty, "k"), remoting.Success, ""},
		{"cloud's timer to normal", send(normal, "__STARTDELIVERTIME", in), remoting.Success, ""},
		{"rocketmq-client-go's key to normal", send(normal, "SHARDING_KEY", "k"), remoting.Success, ""},
		{"key to normal", send(normal, "__SHARDINGKEY", "k"), remoting.MessageIllegal, "the expected type is NORMAL, but actual type is FIFO"},
		{"timer to normal", send(normal, "TIMER_DELIVER_MS", in), remoting.MessageIllegal, "the expected type is NORMAL, but actual type is DELAY"},
		{"half to normal", send(normal, "TRAN_MSG", "true", "PGROUP", "producers"), remoting.MessageIllegal, "the expected type is NORMAL, but actual type is TRANSACTION"},
		{"plain to fifo", send(fifo), remoting.MessageIllegal, "the expected type is FIFO, but actual type is NORMAL"},
		{"key to fifo", send(fifo, "__SHARDINGKEY", "k"), remoting.Success, ""},
		{"plain to delay", send(delay), remoting.MessageIllegal, "the expected type is DELAY, but actual type is NORMAL"},
		{"timer to delay", send(delay, "TIMER_DELIVER_MS", in), remoting.Success, ""},
		{"plain to halves", send(halves), remoting.MessageIllegal, "the expected type is TRANSACTION, but actual type is NORMAL"},
		{"half to halves", send(halves, "TRAN_MSG", "true", "PGROUP", "producers"), remoting.Success, ""},
		{"end of nothing", &remoting.Command{Code: remoting.EndTransaction, Ext: map[string]string{
			"topic": halves, "producerGroup": "producers", "tranStateTableOffset": "0", "commitLogOffset": "0", "commitOrRollback": "8",
			"fromTransactionCheck": "false", "msgId": "none", "transactionId": "none", "bname": "broker-a",
		}}, remoting.Success, ""},
	} {
		response, err := conn.Call(ctx, c.request)
		if response == nil {
			t.Errorf("%s: %v", c.name, err)
		} else if response.Code != c.code || !strings.Contains(response.Remark, c.remark) {
			t.Errorf("%s: code %d, remark %.200q; want %d, %q", c.name, response.Code, response.Remark, c.code, c.remark)
		}
	}
}

// The end of a half message that comes through a proxy is confirmed and has no effect: only a check-back ends it.
func TestProxyDropsEnds(t *testing.T) {
	t.Parallel()
	p := startProxied(t)
	topic := unique("halves")
	p.create(t, broker.Topic{Name: topic, Queues: 1, Kind: broker.Transaction})
	ctx := deadline(t, 90*time.Second)
	group, checks := unique("producers"), make(chan *remoting.Command, 100)
	conn, err := remoting.Dial(ctx, p.proxy, remoting.Credentials{}, func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
		checks <- request
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	call := func(request *remoting.Command) *remoting.Command {
		t.Helper()
		response, err := conn.Call(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	register := func() {
		call(&remoting.Command{Code: remoting.Heartbeat, Body: []byte(`{"clientID":"` + group + `","producerDataSet":[{"groupName":"` + group + `"}],"consumerDataSet":[]}`)})
	}
	register()
	key := unique("key")
	stored := call(&remoting.Command{Code: remoting.SendMessageV2, Body: []byte("half"), Ext: map[string]string{
		"a": group, "b": topic, "c": "TBW102", "d": "4", "e": "0", "f": "4", "g": strconv.FormatInt(time.Now().UnixMilli(), 10), "h": "0",
		"i": remoting.EncodeProperties(map[string]string{"UNIQ_KEY": key, "TRAN_MSG": "true", "PGROUP": group}), "j": "0", "k": "false", "l": "0", "m": "false", "n": "broker-a",
	}})
	_, commitLog, err := remoting.ParseOffsetID(stored.Ext["msgId"])
	if err != nil {
		t.Fatal(err)
	}
	end := func(queueOffset, commitLog, checked string) {
		t.Helper()
		call(&remoting.Command{Code: remoting.EndTransaction, Ext: map[string]string{
			"topic": topic, "producerGroup": group, "tranStateTableOffset": queueOffset, "commitLogOffset": commitLog, "commitOrRollback": "8",
			"fromTransactionCheck": checked, "msgId": key, "transactionId": key, "bname": "broker-a",
		}})
	}
	came := make(chan struct{}, 100)
	reader := open(t, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{p.nameServer}, rocketmq.Own })
	if _, err := reader.Subscribe(ctx, broker.Subscription{Group: unique("reader"), Topics: []string{topic}}, func(context.Context, broker.Delivery) error {
		came <- struct{}{}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	end(stored.Ext["queueOffset"], strconv.FormatInt(commitLog, 10), "false")
	var check *remoting.Command
	for check == nil { // a proxy tells the brokers of its producer groups from time to time
		select {
		case check = <-checks:
		case <-came:
			t.Fatal("the end has taken effect")
		case <-time.After(5 * time.Second):
			register()
		case <-ctx.Done():
			t.Fatal("no check-back")
		}
	}
	end(check.Ext["tranStateTableOffset"], check.Ext["commitLogOffset"], "true")
	select {
	case <-came:
	case <-ctx.Done():
		t.Fatal("the answer to a check-back has not taken effect")
	}
}
