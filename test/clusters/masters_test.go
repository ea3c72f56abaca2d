package clusters

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/app"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/poll"
)

// TestOneOfTwoMastersIsAway kills one of two masters under load. What belongs to the other flows on, what belongs to the one that is away is
// owed and goes there when it is back, and queues that are added meanwhile break no order.
func TestOneOfTwoMastersIsAway(t *testing.T) {
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a", "broker-b"}})
			s := load(t, cluster.NameServerAddresses(), transport)
			s.flowing(time.Now(), time.Minute)
			cluster.Brokers[0].Kill()
			killed := time.Now()
			poll.Succeeds(t, time.Minute, func() error {
				if s.lastEffect.Load() < killed.Add(10*time.Second).UnixNano() {
					return errors.New("handlers don't go on while one of two masters is away")
				}
				return nil
			})
			owed, _, err := s.app.Outbox().Backlog(t.Context())
			if err != nil || owed == 0 {
				t.Errorf("%d events are owed while a master is away, %v; want some", owed, err)
			}
			addQueues(t, cluster.Brokers[1].Address(), 8)
			if err := cluster.Brokers[0].Start(); err != nil {
				t.Fatal(err)
			}
			if err := cluster.AwaitBrokers(bounded(t, 2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			addQueues(t, cluster.Brokers[0].Address(), 8)
			back := time.Now()
			poll.Within(t, 2*time.Minute, "a while under load", func() bool { return s.lastEffect.Load() > back.Add(10*time.Second).UnixNano() })
			s.settle()
		})
	}
}

// TestOneOfTwoMastersIsAwayForLong kills one of two masters under load for longer than rocketmq.Config.ForgetBrokerAfter. What belongs to it
// is owed until then and goes to the other master after; queues are added meanwhile; and when it is back, with what handlers have not read
// there, everything was handled once and in order.
func TestOneOfTwoMastersIsAwayForLong(t *testing.T) {
	const forgetAfter = 30 * time.Second
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{Brokers: []string{"broker-a", "broker-b"}})
			s := load(t, cluster.NameServerAddresses(), transport, func(c *app.Config) { c.RocketMQ.ForgetBrokerAfter = forgetAfter })
			s.flowing(time.Now(), time.Minute)
			away := cluster.Brokers[0]
			away.Kill()
			killed := time.Now()
			most := 0
			poll.Within(t, 2*time.Minute, "the time until the broker is forgotten", func() bool {
				most = max(most, s.owed())
				return time.Since(killed) > forgetAfter
			})
			if most < 100 {
				t.Errorf("at most %d events were owed while a master was away; want those of half of the streams", most)
			}
			var gone time.Duration
			poll.Within(t, 2*time.Minute, "what belonged to the master that is away goes to the other", func() bool {
				gone = time.Since(killed)
				return s.owed() < 20 // those of the last moment
			})
			addQueues(t, cluster.Brokers[1].Address(), 8)
			added := time.Now()
			poll.Within(t, 2*time.Minute, "a while with one master", func() bool { return s.lastEffect.Load() > added.Add(15*time.Second).UnixNano() })
			if n := s.owed(); n > 100 {
				t.Errorf("%d events are owed after the keys have moved", n)
			}
			if err := away.Start(); err != nil {
				t.Fatal(err)
			}
			if err := cluster.AwaitBrokers(bounded(t, 2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			t.Logf("at most %d events were owed, the last until %v after the kill; the master was away for %v", most, gone.Round(time.Second), time.Since(killed).Round(time.Second))
			addQueues(t, away.Address(), 8)
			back := time.Now()
			poll.Within(t, 2*time.Minute, "a while with both masters", func() bool { return s.lastEffect.Load() > back.Add(15*time.Second).UnixNano() })
			s.settle()
		})
	}
}

// owed returns the number of owed events.
func (s *service) owed() int {
	s.t.Helper()
	n, _, err := s.app.Outbox().Backlog(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return int(n)
}

// addQueues gives the topic n queues on one broker.
func addQueues(t *testing.T, address string, n int) {
	t.Helper()
	conn, err := remoting.Dial(t.Context(), address, remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Call(t.Context(), &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": topic, "defaultTopic": "TBW102", "readQueueNums": strconv.Itoa(n), "writeQueueNums": strconv.Itoa(n), "perm": "6",
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}}); err != nil {
		t.Fatal(err)
	}
}

// TestAMissingSlaveIsReportedAndNothingIsSentAgain runs a synchronous master without its slave: messages are stored, which is counted and
// logged. With RequireReplication sends fail until the slave is there.
func TestAMissingSlaveIsReportedAndNothingIsSentAgain(t *testing.T) {
	for _, transport := range transports() {
		t.Run(transport.String(), func(t *testing.T) {
			cluster := start(t, devstack.ClusterConfig{
				Brokers: []string{"broker-a", "broker-a"}, Properties: map[string]string{"inSyncReplicas": "2"}, Sync: true,
			})
			told := make(chan rocketmq.StoredInfo, 100_000)
			s := load(t, cluster.NameServerAddresses(), transport, func(c *app.Config) {
				c.RocketMQ.Listener = &rocketmq.Listener{StoredLessSafely: func(i rocketmq.StoredInfo) { told <- i }}
			})
			s.flowing(time.Now(), time.Minute)
			cluster.Brokers[1].Kill()
			poll.Within(t, time.Minute, "it is told that the slave is missing", func() bool {
				for {
					select {
					case i := <-told:
						if i.Broker == "broker-a" && i.Messages > 0 {
							return true
						}
					default:
						return false
					}
				}
			})
			strict, err := rocketmq.Open(bounded(t, 20*time.Second), rocketmq.Config{
				NameServers: cluster.NameServerAddresses(), Service: "strict", Transport: transport, RequireReplication: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = strict.Close(context.Background()) }()
			_, err = strict.Send(bounded(t, 20*time.Second), broker.Message{Topic: "probes", Body: []byte("strict")})
			if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
				t.Errorf("a strict send without the slave: %v, want ErrUnavailable", err)
			}
			gone := time.Now()
			poll.Within(t, time.Minute, "events flow without the slave", func() bool { return s.lastEffect.Load() > gone.Add(5*time.Second).UnixNano() })
			if err := cluster.Brokers[1].Start(); err != nil {
				t.Fatal(err)
			}
			if err := cluster.AwaitBrokers(bounded(t, 2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			poll.Succeeds(t, time.Minute, func() error {
				_, err := strict.Send(bounded(t, 20*time.Second), broker.Message{Topic: "probes", Body: []byte("strict")})
				return err
			})
			s.settle()
			if n := s.count(`SELECT count(*) FROM effect`); n != int(s.published.Load()) {
				t.Error(fmt.Errorf("%d effects of %d events", n, s.published.Load()))
			}
		})
	}
}
