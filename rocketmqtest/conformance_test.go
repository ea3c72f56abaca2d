//go:build !race

package rocketmqtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestConformance runs the suite that the driver passes on a real broker, for each kind of broker and with each transport that it takes.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		change  func(*rocketmqtest.Config)
		profile rocketmq.Profile
	}{
		{"5.3", func(*rocketmqtest.Config) {}, rocketmq.Apache5},
		{"5.5", func(c *rocketmqtest.Config) { c.Version = rocketmqtest.RocketMQ55 }, rocketmq.Apache5},
		{"4.9 as 5", func(c *rocketmqtest.Config) { c.Version = rocketmqtest.RocketMQ49 }, rocketmq.Apache5},
		{"4.9", func(c *rocketmqtest.Config) { c.Version = rocketmqtest.RocketMQ49 }, rocketmq.Apache4},
		{"DMS", func(c *rocketmqtest.Config) { c.DMS, c.TimerMaxDelay = true, 365*24*time.Hour }, rocketmq.HuaweiDMS4},
		{"proxy", func(c *rocketmqtest.Config) { c.Version, c.Proxy = rocketmqtest.RocketMQ55, true }, rocketmq.Proxy5},
	} {
		for _, transport := range []rocketmq.Transport{rocketmq.Own, rocketmq.ClientGo} {
			if c.profile == rocketmq.Proxy5 && transport == rocketmq.ClientGo {
				continue // it is refused
			}
			t.Run(c.name+"/"+transport.String(), func(t *testing.T) {
				t.Parallel()
				config := rocketmqtest.Config{
					MaxMessageSize:     2 << 20,
					TransactionTimeout: 500 * time.Millisecond, CheckInterval: 250 * time.Millisecond, CheckMax: 240, OpBatchInterval: 100 * time.Millisecond,
					TimerPrecision: 100 * time.Millisecond,
				}
				c.change(&config)
				conformance(t, rocketmqtest.RunT(t, config), c.profile, transport)
			})
		}
	}
}

// A broker whose timers are switched off, or which has none, says so to callers of Schedule; what is due at once is delivered.
func TestDriverReportsMissingTimers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		config  rocketmqtest.Config
		horizon time.Duration
	}{
		"switched off": {rocketmqtest.Config{NoTimers: true}, 71 * time.Hour},
		"4.9":          {rocketmqtest.Config{Version: rocketmqtest.RocketMQ49}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := open(t, rocketmqtest.RunT(t, c.config))
			if err := client.CreateTopics(t.Context(), broker.Topic{Name: "alarms"}); err != nil {
				t.Fatal(err)
			}
			m := broker.Message{Topic: "alarms", Body: []byte("m")}
			if _, err := client.Schedule(t.Context(), m, time.Now().Add(time.Hour)); !errors.Is(err, broker.ErrNoTimers) || !errors.Is(err, broker.ErrRejected) {
				t.Errorf("got %v, want ErrNoTimers", err)
			}
			if _, err := client.Schedule(t.Context(), m, time.Now().Add(-time.Hour)); err != nil {
				t.Errorf("in the past: %v", err)
			}
			if h := client.Horizon(); h != c.horizon {
				t.Errorf("horizon %v, want %v", h, c.horizon)
			}
		})
	}
}

func conformance(t *testing.T, mq *rocketmqtest.Server, profile rocketmq.Profile, transport rocketmq.Transport) {
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		admin := open(t, mq)
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver { return openProfile(t, mq, profile, transport) },
			Close: func(t *testing.T, d brokertest.Driver) {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				if err := d.(*rocketmq.Client).Close(ctx); err != nil {
					t.Errorf("close: %v", err)
				}
			},
			CreateTopic: func(t *testing.T, topic broker.Topic) {
				if err := admin.CreateTopics(t.Context(), topic); err != nil {
					t.Fatal(err)
				}
			},
			MaxBody:        2 << 20,
			NoHalfMessages: profile.RefusesHalfMessages() != nil,
			BeginsOldest:   !profile.Facts().BeginsAtNewest.Is,
			BrokersByTopic: !profile.Facts().ListsBrokers.Is,
			OneType:        profile.Facts().TypesAreChecked.Is,
		}
	})
}

func open(t testing.TB, mq *rocketmqtest.Server) *rocketmq.Client {
	t.Helper()
	return openProfile(t, mq, rocketmq.Apache5, rocketmq.Own)
}

func openProfile(t testing.TB, mq *rocketmqtest.Server, profile rocketmq.Profile, transport rocketmq.Transport) *rocketmq.Client {
	t.Helper()
	config := rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "conformance", Profile: profile, Transport: transport, SendTimeout: 20 * time.Second}
	if profile == rocketmq.Proxy5 {
		config.NameServers = []string{mq.ProxyAddr()}
	}
	return testbroker.Open(t, config)
}
