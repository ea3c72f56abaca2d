package rocketmqtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// imitated are the versions that this broker behaves as.
var imitated = map[string]rocketmqtest.Version{"4.9.7": rocketmqtest.RocketMQ49, "5.3.3": rocketmqtest.RocketMQ53, "5.5.0": rocketmqtest.RocketMQ55}

// TestSameResponsesAsRocketMQ sends the same raw requests to this broker and to a real one with the settings of internal/devstack,
// and compares the responses.
func TestSameResponsesAsRocketMQ(t *testing.T) {
	t.Parallel()
	address := testbroker.NeedsReal(t)
	version, ok := imitated[testbroker.Version()]
	if !ok {
		t.Skipf("the embedded broker doesn't behave as %s", testbroker.Version())
	}
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{
		Version:            version,
		MaxMessageSize:     2 << 20,
		TransactionTimeout: 2 * time.Second, CheckInterval: time.Second, CheckMax: 60, OpBatchInterval: 100 * time.Millisecond,
		TimerPrecision: 100 * time.Millisecond,
	})
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			real := talk(t, address, part.run)
			embedded := talk(t, mq.Addr(), part.run)
			compare(t, part.name, embedded, real)
		})
	}
}

// compare reports each exchange whose responses differ, unless the difference is intended.
func compare(t *testing.T, part string, embedded, real []exchange) {
	t.Helper()
	if len(embedded) != len(real) {
		t.Errorf("%d responses, the real broker gave %d", len(embedded), len(real))
	}
	for i := range min(len(embedded), len(real)) {
		e, r := embedded[i], real[i]
		reason, ok := intended[part+"/"+e.label]
		switch same := e.response == r.response; {
		case !same && !ok:
			t.Errorf("%s:\n     got %s\nreal one %s", e.label, e.response, r.response)
		case same && ok:
			t.Errorf("%s: the responses don't differ any more (%s)", e.label, reason)
		case testing.Verbose():
			t.Logf("%s: %s", e.label, r.response)
		}
	}
}

// exchange is a request's name and its response, in a form that doesn't depend on the broker.
type exchange struct{ label, response string }

// conversation is one part's connections to one of the brokers, and the exchanges so far.
type conversation struct {
	t           *testing.T
	id          string // part of each name
	namesAddr   string
	brokerAddr  string
	names       *remoting.Conn
	one, two    *remoting.Conn // two clients' connections to the broker
	exchanges   []exchange
	notified    chan remoting.Code // what the broker sent to client two
	clientOne   string
	clientTwo   string
	replacement *strings.Replacer
}

func talk(t *testing.T, address string, script func(*conversation)) []exchange {
	t.Helper()
	c := &conversation{t: t, id: strings.ReplaceAll(uuid.NewString(), "-", "")[:16], namesAddr: address, notified: make(chan remoting.Code, 100)}
	c.names = c.dial(address, nil)
	var cluster remoting.Cluster
	response, err := c.names.Call(t.Context(), &remoting.Command{Code: remoting.ClusterInfo})
	if err == nil {
		err = remoting.DecodeJSON(response.Body, &cluster)
	}
	if err != nil {
		t.Fatalf("cluster of %s: %v", address, err)
	}
	for _, b := range cluster.Brokers {
		c.brokerAddr = b.Master()
	}
	c.one = c.dial(c.brokerAddr, nil)
	c.two = c.dial(c.brokerAddr, func(_ *remoting.Conn, request *remoting.Command) *remoting.Command {
		select {
		case c.notified <- request.Code:
		default:
		}
		return nil
	})
	c.clientOne, c.clientTwo = "client-one-"+c.id, "client-two-"+c.id
	c.replacement = strings.NewReplacer(c.id, "ID", c.brokerAddr, "BROKER", c.one.LocalAddr().String(), "CLIENT", c.two.LocalAddr().String(), "CLIENT")
	script(c)
	return c.exchanges
}

func (c *conversation) dial(address string, h remoting.Handler) *remoting.Conn {
	c.t.Helper()
	conn, err := remoting.Dial(c.t.Context(), address, remoting.Credentials{}, h)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.Close)
	return conn
}

func (c *conversation) name(s string) string { return s + "-" + c.id }

type fields map[string]string

// with returns a copy with other values for some fields; "" removes one.
func (f fields) with(namesAndValues ...string) fields {
	f = maps.Clone(f)
	for i := 0; i < len(namesAndValues); i += 2 {
		if f[namesAndValues[i]] = namesAndValues[i+1]; namesAndValues[i+1] == "" {
			delete(f, namesAndValues[i])
		}
	}
	return f
}

// request sends a request to the broker and records the exchange.
func (c *conversation) request(label string, code remoting.Code, ext fields, body ...byte) *remoting.Command {
	c.t.Helper()
	return c.requestOn(c.one, label, code, ext, body...)
}

// unanswered sends a request that may get no response, which is recorded as "none".
func (c *conversation) unanswered(label string, conn *remoting.Conn, code remoting.Code) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	response := "none"
	if a, _ := conn.Call(ctx, &remoting.Command{Code: code}); a != nil { // the error of a refusal is its response
		response = c.normal(a)
	}
	c.exchanges = append(c.exchanges, exchange{label, response})
}

func (c *conversation) requestOn(conn *remoting.Conn, label string, code remoting.Code, ext fields, body ...byte) *remoting.Command {
	c.t.Helper()
	response := c.call(conn, code, ext, body...)
	c.exchanges = append(c.exchanges, exchange{label, c.normal(response)})
	return response
}

// keys sends a request and records only the top-level names of the response's body, which depends on other tests.
func (c *conversation) keys(label string, conn *remoting.Conn, code remoting.Code) {
	c.t.Helper()
	response := c.call(conn, code, nil)
	var body map[string]any
	if err := remoting.DecodeJSON(response.Body, &body); err != nil {
		c.t.Fatal(err)
	}
	c.exchanges = append(c.exchanges, exchange{label, fmt.Sprint(response.Code, slices.Sorted(maps.Keys(body)))})
}

// call sends a request whose response is not compared; nil: there was none.
func (c *conversation) call(conn *remoting.Conn, code remoting.Code, ext fields, body ...byte) *remoting.Command {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer cancel()
	response, err := conn.Call(ctx, &remoting.Command{Code: code, Ext: ext, Body: body})
	if response == nil {
		c.t.Fatalf("request %d %v: %v", code, ext, err)
	}
	return response
}

// until repeats a request until its response is as wanted: changes that a real broker has acknowledged become visible later,
// topics up to 30 s later if a name server could not be reached at once.
func (c *conversation) until(what string, enough func() bool) {
	c.t.Helper()
	poll.Succeeds(c.t, 45*time.Second, func() error {
		if !enough() {
			return fmt.Errorf("%s on %s; responses: %v", what, c.namesAddr, c.exchanges)
		}
		return nil
	})
}

func (c *conversation) topic(name string, queues int, more ...string) string {
	c.t.Helper()
	name = c.name(name)
	c.call(c.one, remoting.UpdateTopic, fields{
		"topic": name, "readQueueNums": strconv.Itoa(queues), "writeQueueNums": strconv.Itoa(queues), "perm": "6",
		"defaultTopic": "TBW102", "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}.with(more...))
	c.until("route of "+name, func() bool { return c.call(c.names, remoting.RouteOfTopic, fields{"topic": name}).Code == 0 })
	return name
}

// stored waits until a queue has n messages, or more.
func (c *conversation) stored(topic string, queue, n int) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d messages of %s", n, topic), func() bool {
		offset, err := strconv.Atoi(c.call(c.one, remoting.MaxOffset, fields{"topic": topic, "queueId": strconv.Itoa(queue)}).Ext["offset"])
		return err == nil && offset >= n
	})
}

func (c *conversation) heartbeat(conn *remoting.Conn, client, body string) {
	c.t.Helper()
	c.call(conn, remoting.Heartbeat, nil, []byte(strings.ReplaceAll(body, "CLIENT", client))...)
}

var (
	offsetID     = regexp.MustCompile(`\b[0-9A-F]{32}\b`)
	halfOffset   = regexp.MustCompile(`queueOffset=[0-9]+`) // in a queue that is everybody's
	recallHandle = regexp.MustCompile(`recallHandle=\S+`)
	// What a real broker says of a request that it can't read is for its own developers.
	malformed = regexp.MustCompile(`^(java\.|com\.alibaba|org\.apache|Cannot invoke|topicFilterType|the custom field|malformed )`)
	lookedUp  = regexp.MustCompile(`(by offset failed|by the offset), [0-9]+`)
	generated = regexp.MustCompile(`^[0-9A-F]{32,}$`) // a unique key that the broker made up
	javaTrace = regexp.MustCompile(`(?s)\n.*`)
	// A timer that was due before a broker had put it into its wheel.
	atOnce    = regexp.MustCompile(`TIMER_ENQUEUE_MS=9223372036854775807`)
	javaTimes = regexp.MustCompile(`\b1[0-9]{12}\b`)
)

// normal writes down a response.
func (c *conversation) normal(a *remoting.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", a.Code)
	if a.Remark != "" && a.Remark != "not set any response code" {
		fmt.Fprintf(&b, " %q", c.text(a.Remark))
	}
	for _, name := range slices.Sorted(maps.Keys(a.Ext)) {
		value := c.text(a.Ext[name])
		if name == "indexLastUpdatePhyoffset" && value != "0" {
			value = "N"
		}
		if name == "transactionId" && generated.MatchString(a.Ext[name]) {
			value = "GENERATED"
		}
		fmt.Fprintf(&b, " %s=%s", name, value)
	}
	if len(a.Body) > 0 {
		b.WriteString(" body=" + c.body(a.Body))
	}
	return b.String()
}

func (c *conversation) text(s string) string {
	if s = javaTrace.ReplaceAllString(s, ""); malformed.MatchString(s) {
		return "(MALFORMED)"
	}
	s = c.replacement.Replace(s)
	s = lookedUp.ReplaceAllString(s, "$1, N")
	s = offsetID.ReplaceAllString(s, "OFFSET-ID")
	s = atOnce.ReplaceAllString(s, "TIMER_ENQUEUE_MS=TIME")
	return javaTimes.ReplaceAllString(s, "TIME")
}

func (c *conversation) body(b []byte) string {
	if b[0] == '{' || b[0] == '[' {
		var v any
		if err := remoting.DecodeJSON(b, &v); err != nil {
			return err.Error()
		}
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err.Error()
		}
		return strings.TrimSpace(c.text(out.String()))
	}
	records, err := remoting.DecodeRecords(b)
	if err != nil {
		return fmt.Sprintf("%q", b)
	}
	var all []string
	for _, r := range records {
		p := []string{}
		for _, name := range slices.Sorted(maps.Keys(r.Properties)) {
			p = append(p, name+"="+c.text(r.Properties[name]))
		}
		body := string(r.Body)
		if len(body) > 40 {
			body = fmt.Sprintf("%d bytes", len(body))
		}
		all = append(all, fmt.Sprintf("{%s/%d@%d flag=%d sys=%d reconsumed=%d prepared=%t born=%t %v %q}",
			c.text(r.Topic), r.Queue, r.QueueOffset, r.Flag, r.SysFlag, r.Reconsumed, r.PreparedOffset != 0, r.Born.UnixMilli() > 0, p, body))
	}
	return strings.Join(all, " ")
}
