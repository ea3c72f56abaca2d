package doctor

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

var errUnlisted = errors.New("profile proxy5: the cluster can't be asked for its brokers (tried: on one)")

// proxy starts an embedded broker and examines it through a proxy, which lists no brokers.
func (w *world) proxy(c ...rocketmqtest.Config) {
	w.Helper()
	config := rocketmqtest.Config{}
	if len(c) > 0 {
		config = c[0]
	}
	config.Proxy = true
	w.broker(config)
	w.config.Broker.NameServers, w.config.Broker.Unlisted = []string{w.mq.ProxyAddr()}, errUnlisted
}

// Behind a proxy no check of a broker is ok: each says why it can't look and what to do instead. The others look as ever.
func TestChecksBehindAProxy(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Probe: true, CheckTimeout: 20 * time.Second}}
	w.database()
	w.partitions()
	w.event("orders", 0)
	w.consumer("billing", "orders")
	needsBroker := map[string]bool{}
	for _, r := range w.examine().Results {
		needsBroker[r.Code] = r.Status == Unknown && r.Observed == "no name server is named"
	}
	w.proxy()
	w.mq.CreateTopic("orders", 4)
	w.mq.CreateTopic("rocketflow-missing-events", 1)
	groups := map[Group]int{}
	for _, r := range w.examine().Results {
		aboutBroker := strings.HasPrefix(r.Subject, "clock of RocketMQ")
		if !needsBroker[r.Code] && !aboutBroker {
			if strings.Contains(r.Observed, errUnlisted.Error()) {
				t.Errorf("%s is about a broker without a need: %+v", r.Code, r)
			}
			continue
		}
		groups[r.Group]++
		if r.Status != Unknown || !strings.Contains(r.Observed, errUnlisted.Error()) || !strings.Contains(r.Mend, "--only "+string(r.Group)) {
			t.Errorf("%s: want not known with the profile's reason and what to do instead, got %+v", r.Code, r)
		}
	}
	for _, group := range []Group{Host, RocketMQ, Outbox, Consumers} {
		if groups[group] == 0 {
			t.Errorf("no check of %s", group)
		}
	}
}

// What a proxy knows is looked at: a topic that is missing or can't be written is a finding.
func TestTopicsBehindAProxy(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker-topics"}}}
	w.database()
	w.partitions()
	w.event("orders", 0)
	w.proxy()
	w.mq.CreateTopic("rocketflow-missing-events", 1)
	r := w.examine().Results
	if len(r) != 1 || r[0].Status != Finding || !strings.Contains(r[0].Observed, "orders doesn't exist") || !strings.Contains(r[0].Mend, "rocketflow topics --schema") {
		t.Errorf("got %+v", r)
	}
}

// A proxy that is away is an outage, whatever the profile can't do.
func TestProxyIsAway(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker"}, Pre: true}}
	w.brokerAway()
	w.config.Broker.Unlisted = errUnlisted
	for _, r := range w.examine().Results {
		if r.Status != Unknown || !strings.Contains(r.Observed, "127.0.0.1:1") {
			t.Errorf("got %+v", r)
		}
	}
}

// Requests to a proxy are signed, because it may have users.
func TestProxyWithUsers(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker-topics"}}}
	w.database()
	w.partitions()
	w.event("orders", 0)
	w.proxy(rocketmqtest.Config{Credentials: map[string]string{"app": "secret"}})
	w.mq.CreateTopic("rocketflow-missing-events", 1)
	w.config.Broker.AccessKey, w.config.Broker.SecretKey = "app", "secret"
	if r := w.examine().Results; len(r) != 1 || r[0].Status != Finding {
		t.Errorf("got %+v", r)
	}
	w.config.Broker.SecretKey = "wrong"
	if r := w.examine().Results; !slices.ContainsFunc(r, func(r Result) bool {
		return r.Status == Unknown && strings.Contains(r.Observed, "the secret key is wrong")
	}) {
		t.Errorf("got %+v", r)
	}
}

// An address that lists no brokers, without a profile that says so, is named as what it is.
func TestProxyWithoutAProfile(t *testing.T) {
	t.Parallel()
	w := &world{T: t, config: Config{Only: []string{"broker"}, Pre: true}}
	w.proxy()
	w.config.Broker.Unlisted = nil
	for _, r := range w.examine().Results {
		if r.Status != Unknown || !strings.Contains(r.Observed, "ROCKETMQ_PROFILE") {
			t.Errorf("got %+v", r)
		}
	}
}
