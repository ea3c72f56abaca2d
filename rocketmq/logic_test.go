package rocketmq

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	t.Parallel()
	good := Config{NameServers: []string{"h:1"}, Service: "s"}
	if err := good.withDefaults().validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Config){
		"NameServers":       func(c *Config) { c.NameServers = []string{"h"} },
		"Service":           func(c *Config) { c.Service = "a b" },
		"Namespace":         func(c *Config) { c.Namespace = "a%b" },
		"SecretKey":         func(c *Config) { c.AccessKey = "a" },
		"SendTimeout":       func(c *Config) { c.SendTimeout = -1 },
		"ForgetBrokerAfter": func(c *Config) { c.ForgetBrokerAfter = time.Millisecond },
		"MaxAsync":          func(c *Config) { c.MaxAsync = -1 },
		"TimerHorizon":      func(c *Config) { c.TimerHorizon = -1 },
		"Profile":           func(c *Config) { c.Profile = "kafka" },
		"Transport":         func(c *Config) { c.Transport = 9 },
		"MaxMessage":        func(c *Config) { c.MaxMessage = -1 },
	} {
		c := good
		change(&c)
		var e *rocketflow.FieldError
		if err := c.withDefaults().validate(); !errors.As(err, &e) || e.Field != "rocketmq.Config."+field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

// TestErrorOfClientIsTyped pins the text in which rocketmq-client-go returns a broker's response code.
func TestErrorOfClientIsTyped(t *testing.T) {
	t.Parallel()
	var refused *remoting.ResponseError
	err := typedError(errors.New("CODE: 17, DESC: topic[x] not exist\nmore"))
	if !errors.As(err, &refused) || refused.Code != remoting.TopicNotExist || !errors.Is(err, broker.ErrTopicNotFound) {
		t.Errorf("got %v", err)
	}
	if err := typedError(errors.New("request timeout")); !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
		t.Errorf("got %v", err)
	}
}

func TestRouteKeepsQueuesOfARestartingBroker(t *testing.T) {
	t.Parallel()
	r := routes{mayReturn: func(name string) bool { return name == "b" }}
	old := []queue{{"a", 0}, {"a", 1}, {"b", 0}, {"c", 0}}
	got := r.merge(old, []queue{{"a", 0}, {"a", 1}})
	if want := []queue{{"a", 0}, {"a", 1}, {"b", 0}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The count of deliveries comes with the message: whatever it is, a pause is computed from it.
func TestAttemptIsBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reconsumed int
		property   string
		want       int
	}{
		{0, "", 1}, {3, "", 4}, {3, "5", 6}, {5, "3", 6}, {0, "x", 1}, {-5, "", 1}, {math.MinInt32, "-9", 1},
		{math.MaxInt32, "", maxAttempt}, {0, strconv.Itoa(math.MaxInt), maxAttempt}, {0, strings.Repeat("9", 30), maxAttempt},
	} {
		got := attemptOf(c.reconsumed, map[string]string{"RECONSUME_TIME": c.property})
		if pause := backoff(got-1, minHandlerPause, maxHandlerPause); got != c.want || pause <= 0 || pause > maxHandlerPause {
			t.Errorf("%d, %q: attempt %d, want %d; pause %v", c.reconsumed, c.property, got, c.want, pause)
		}
	}
}

// What decompressed bodies take is bounded for the whole consumer, and one always fits.
func TestRoomForDecompressedBodies(t *testing.T) {
	t.Parallel()
	const most = 4 << 20
	k := &consumer{client: &Client{config: Config{MaxMessage: most}}, unpacked: semaphore.NewWeighted(maxUnpacked + most)}
	never, now := make(chan struct{}), make(chan struct{})
	close(now)
	reads := 0
	take := func(stop <-chan struct{}, d broker.Delivery) (func(), bool) {
		_, release, ok := k.unpack(stop, true, func(int) broker.Delivery { reads++; return d })
		return release, ok
	}
	large := broker.Delivery{Message: broker.Message{Body: make([]byte, most)}}
	var releases []func()
	for range maxUnpacked/most + 1 {
		release, ok := take(never, large)
		if releases = append(releases, release); !ok {
			t.Fatal("no room")
		}
	}
	if _, ok := take(now, large); ok || reads != len(releases) {
		t.Errorf("%d bodies of %d bytes were decompressed, want %d", reads, most, len(releases))
	}
	if _, _, ok := k.unpack(now, false, func(int) broker.Delivery { return large }); !ok {
		t.Error("a body that isn't compressed waits")
	}
	came := make(chan func())
	go func() {
		release, _ := take(never, large)
		came <- release
	}()
	releases[0]()
	releases = append(releases[1:], <-came)
	for _, release := range releases {
		release()
	}
	for range 1000 { // small ones, and those that can't be read, take little or nothing
		for _, d := range []broker.Delivery{{Message: broker.Message{Body: make([]byte, 1000)}}, {Unreadable: remoting.ErrTooLong, Message: large.Message}} {
			if _, ok := take(now, d); !ok {
				t.Fatal("no room for small bodies")
			}
		}
	}
}

func TestShardingKeyChoosesTheSameQueueInAllProcesses(t *testing.T) {
	t.Parallel()
	up := func(name string) bool { return name == "b" }
	route := &topicRoute{queues: writable(remoting.Route{
		Queues:  []remoting.QueueData{{Broker: "b", Write: 2, Perm: 6}, {Broker: "a", Write: 2, Perm: 6}, {Broker: "slave", Write: 1, Perm: 6}, {Broker: "a", Write: 9, Perm: 4}},
		Brokers: []remoting.BrokerData{{Name: "a", Addresses: map[string]string{"0": "x"}}, {Name: "b", Addresses: map[string]string{"0": "y"}}, {Name: "slave", Addresses: map[string]string{"1": "z"}}},
	})}
	if want := []queue{{"a", 0}, {"a", 1}, {"b", 0}, {"b", 1}}; !slices.Equal(route.queues, want) {
		t.Fatalf("got %v, want %v", route.queues, want)
	}
	// With a changed hash two versions of a service that run at the same time would use different queues for a key.
	for key, want := range map[string]queue{"order-1": {"a", 1}, "a": {"a", 0}, "order-2": {"a", 0}, "order-3": {"b", 1}, "order-4": {"b", 0}} {
		if got := route.pick(key, up); got != want {
			t.Errorf("key %s is in %v, want %v", key, got, want)
		}
	}
	for range 8 {
		if q := route.pick("", up); q.broker != "b" {
			t.Errorf("without a key: %v, whose broker is down", q)
		}
	}
}

func TestTimerFormats(t *testing.T) {
	t.Parallel()
	due := time.UnixMilli(1700000000123).Add(time.Microsecond)
	timer := broker.Timer{MessageID: "ID", Topic: "T", Due: due}
	const ms = "1700000000124" // rounded up
	apache, dms := Apache5.Facts().Timers.Is, HuaweiDMS4.Facts().Timers.Is
	if got := dms.scheduleProperties(dueMillis(due)); !maps.Equal(got, map[string]string{"__STARTDELIVERTIME": ms}) {
		t.Errorf("DMS: got %v", got)
	}
	if got := dms.cancelProperties(timer, 0); len(got) != 1 || !maps.Equal(got[0], map[string]string{"__STARTDELIVERTIME": ms, "__CANCEL_SCHEDULED_MSG": "ID"}) {
		t.Errorf("DMS: got %v", got)
	}
	for version, keys := range map[int][]string{475: {"ID"}, 479: {"T+ID"}, 493: {"ID", "T+ID"}, 513: {"ID", "T+ID"}, 0: {"ID", "T+ID"}} {
		var got []string
		for _, p := range apache.cancelProperties(timer, version) {
			if p["TIMER_DELIVER_MS"] != ms {
				t.Errorf("version %d: %v", version, p)
			}
			got = append(got, p["TIMER_DEL_UNIQKEY"])
		}
		if !slices.Equal(got, keys) {
			t.Errorf("version %d: got %v, want %v", version, got, keys)
		}
	}
}

// Timers begin with RocketMQ 5.0.0. While a broker's version isn't known yet, it may have some.
func TestVersionsWithTimers(t *testing.T) {
	t.Parallel()
	for version, want := range map[int]bool{0: true, 407: false, 411: false, 412: true, 413: true, 479: true, 513: true} {
		if got := !is4(version); got != want {
			t.Errorf("version %d: %v, want %v", version, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for attempt := range 100 {
		if d := backoff(attempt, minHandlerPause, maxHandlerPause); d < minHandlerPause*3/4 || d > maxHandlerPause {
			t.Errorf("attempt %d: %v", attempt, d)
		}
	}
}
