package rocketmqtest_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// wire is a client that sends raw requests, and collects the checks that it gets.
type wire struct {
	t      *testing.T
	mq     *rocketmqtest.Server
	conn   *remoting.Conn
	checks chan check
}

type check struct {
	ext  map[string]string
	half *remoting.Record
}

const (
	wireTopic = "topic" // has two queues; messages go to the second
	wireGroup = "producers"
)

func run(t *testing.T, c rocketmqtest.Config) *wire {
	t.Helper()
	mq := rocketmqtest.RunT(t, c)
	mq.CreateTopic(wireTopic, 2)
	return connect(t, mq)
}

func connect(t *testing.T, mq *rocketmqtest.Server) *wire {
	t.Helper()
	w := &wire{t: t, mq: mq, checks: make(chan check, 1000)}
	conn, err := remoting.Dial(t.Context(), mq.BrokerAddr(), remoting.Credentials{}, func(_ *remoting.Conn, r *remoting.Command) *remoting.Command {
		if r.Code == remoting.CheckTransactionState {
			halves, err := remoting.DecodeRecords(r.Body)
			if err != nil || len(halves) != 1 || !r.Oneway() {
				t.Errorf("check with %d half messages, oneway %v, %v", len(halves), r.Oneway(), err)
				return nil
			}
			w.checks <- check{r.Ext, halves[0]}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	w.conn = conn
	return w
}

// produce registers the client as a producer.
func (w *wire) produce(client string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"clientID":%q,"producerDataSet":[{"groupName":%q}]}`, client, wireGroup)
	if a := w.call(remoting.Heartbeat, fields{}, body); a.Code != remoting.Success {
		w.t.Fatalf("heartbeat: %v", a.Err())
	}
}

// call returns any response.
func (w *wire) call(code remoting.Code, ext fields, body string) *remoting.Command {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	a, err := w.conn.Call(ctx, &remoting.Command{Code: code, Ext: ext, Body: []byte(body)})
	if a == nil {
		w.t.Fatalf("request %d: %v", code, err)
	}
	return a
}

// try sends a message with properties, given as name, value, and returns any response.
func (w *wire) try(body string, properties ...string) *remoting.Command {
	w.t.Helper()
	return w.tryTo(wireTopic, time.Now(), body, properties...)
}

func (w *wire) tryTo(topic string, born time.Time, body string, properties ...string) *remoting.Command {
	w.t.Helper()
	return w.call(remoting.SendMessage, sendRequest(topic, born, properties...), body)
}

func sendRequest(topic string, born time.Time, properties ...string) fields {
	p := map[string]string{}
	for i := 0; i < len(properties); i += 2 {
		p[properties[i]] = properties[i+1]
	}
	return fields{
		"producerGroup": wireGroup, "topic": topic, "queueId": "1", "sysFlag": "0", "flag": "0", "bornTimestamp": millis(born),
		"defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "properties": remoting.EncodeProperties(p),
		"reconsumeTimes": "0", "unitMode": "false", "maxReconsumeTimes": "0", "batch": "false",
	}
}

func (w *wire) send(body string, properties ...string) *remoting.Command {
	w.t.Helper()
	a := w.try(body, properties...)
	if a.Code != remoting.Success {
		w.t.Fatalf("send %s: %v", body, a.Err())
	}
	return a
}

// half sends a half message.
func (w *wire) half(body string, properties ...string) *remoting.Command {
	w.t.Helper()
	return w.send(body, append([]string{"TRAN_MSG", "true", "PGROUP", wireGroup, "UNIQ_KEY", body}, properties...)...)
}

// end ends the half message of a response to half.
func (w *wire) end(half *remoting.Command, kind int) *remoting.Command {
	w.t.Helper()
	return w.call(remoting.EndTransaction, endOf(w.t, half, kind), "")
}

func endOf(t *testing.T, half *remoting.Command, kind int) fields {
	t.Helper()
	_, offset, err := remoting.ParseOffsetID(half.Ext["msgId"])
	if err != nil {
		t.Fatal(err)
	}
	return fields{
		"producerGroup": wireGroup, "tranStateTableOffset": half.Ext["queueOffset"], "commitLogOffset": strconv.FormatInt(offset, 10),
		"commitOrRollback": strconv.Itoa(kind), "fromTransactionCheck": "false", "msgId": half.Ext["msgId"], "transactionId": half.Ext["transactionId"],
	}
}

// endChecked responses a check.
func (w *wire) endChecked(c check, kind int) *remoting.Command {
	w.t.Helper()
	return w.call(remoting.EndTransaction, fields{
		"producerGroup": wireGroup, "tranStateTableOffset": c.ext["tranStateTableOffset"], "commitLogOffset": c.ext["commitLogOffset"],
		"commitOrRollback": strconv.Itoa(kind), "fromTransactionCheck": "true",
	}, "")
}

// checked returns the checks that were sent since the last call.
func (w *wire) checked() []check {
	w.t.Helper()
	w.call(remoting.MaxOffset, fields{"topic": wireTopic, "queueId": "0"}, "") // its response comes after them
	var all []check
	for len(w.checks) > 0 {
		all = append(all, <-w.checks)
	}
	return all
}

// pull requests messages of a queue.
func (w *wire) pull(topic string, queue, offset int) *remoting.Command {
	w.t.Helper()
	return w.call(remoting.PullMessage, fields{
		"consumerGroup": "consumers", "topic": topic, "queueId": strconv.Itoa(queue), "queueOffset": strconv.Itoa(offset), "maxMsgNums": "32",
		"sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0", "expressionType": "TAG",
	}, "")
}

// read returns what a queue holds, or nothing of a topic that doesn't exist.
func (w *wire) read(topic string, queue int) []*remoting.Record {
	w.t.Helper()
	var all []*remoting.Record
	for {
		a := w.pull(topic, queue, len(all))
		if a.Code != remoting.Success {
			return all
		}
		records, err := remoting.DecodeRecords(a.Body)
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, records...)
	}
}

// delivered returns the bodies of what arrived in the topic that messages are sent to.
func (w *wire) delivered() []string {
	w.t.Helper()
	return bodies(w.read(wireTopic, 1))
}

func bodies(records []*remoting.Record) []string {
	all := []string{}
	for _, r := range records {
		all = append(all, string(r.Body))
	}
	return all
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func wantResponse(t *testing.T, what string, a *remoting.Command, code remoting.Code, remark string) {
	t.Helper()
	if a.Code != code || a.Remark != remark {
		t.Errorf("%s: got %d %q, want %d %q", what, a.Code, a.Remark, code, remark)
	}
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
