package rocketmq_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

var transports = []rocketmq.Transport{rocketmq.ClientGo, rocketmq.Own}

// cpu returns the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSend measures the client's processor time for a send of 512 bytes, and for an event in a group of 32, to the broker that
// ROCKETMQ_NAMESRV names, which is another process.
func BenchmarkSend(b *testing.B) {
	for _, variant := range []struct {
		name   string
		change func(*rocketmq.Config)
	}{
		{rocketmq.ClientGo.String(), func(c *rocketmq.Config) { c.Transport = rocketmq.ClientGo }},
		{rocketmq.Own.String(), func(c *rocketmq.Config) { c.Transport = rocketmq.Own }},
		{rocketmq.Own.String() + "-json", func(c *rocketmq.Config) { c.Transport = rocketmq.Own; c.UseJSONHeaders() }},
	} {
		c := open(b, variant.change)
		topic := unique("bench")
		if err := c.CreateTopics(b.Context(), broker.Topic{Name: topic}); err != nil {
			b.Fatal(err)
		}
		message := broker.Message{Topic: topic, Body: make([]byte, 512), Tag: "order.placed", Keys: []string{"some-key"}, Properties: map[string]string{
			"CE_id": "01234567-89ab-cdef-0123-456789abcdef", "CE_type": "order.placed", "CE_source": "orders", "CE_specversion": "1.0", "CE_contenttype": "application/json",
		}}
		measure := func(b *testing.B, callers, events int, do func() error) {
			if err := do(); err != nil { // it learns the route
				b.Fatal(err)
			}
			turns := make(chan struct{}, 1024)
			var all sync.WaitGroup
			b.ResetTimer()
			began := cpu(b)
			for range callers {
				all.Go(func() {
					for range turns {
						if err := do(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for range b.N {
				turns <- struct{}{}
			}
			close(turns)
			all.Wait()
			n := float64(b.N * events)
			b.ReportMetric(float64((cpu(b)-began).Microseconds())/n, "cpu-µs/event")
			b.ReportMetric(n/b.Elapsed().Seconds(), "events/s")
		}
		for _, callers := range []int{1, 32} {
			b.Run("one/"+variant.name+"/callers="+strconv.Itoa(callers), func(b *testing.B) {
				measure(b, callers, 1, func() error {
					_, err := c.Send(b.Context(), message)
					return err
				})
			})
		}
		group := slices.Repeat([]broker.Message{message}, 32)
		b.Run("group/"+variant.name, func(b *testing.B) {
			measure(b, 1, len(group), func() error {
				for _, err := range c.SendGroup(b.Context(), group) {
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}

// BenchmarkStop measures how long a consumer takes to stop that has just started.
func BenchmarkStop(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.String(), func(b *testing.B) {
			mq := rocketmqtest.RunT(b)
			mq.CreateTopic("topic", 4)
			c := open(b, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, transport })
			for b.Loop() {
				b.StopTimer()
				k, err := c.Subscribe(b.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}}, ignore)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := k.Stop(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRestart measures how long after a broker's return a consumer handles the first message that is sent then. An iteration is
// one restart; run it with -benchtime 50x.
func BenchmarkRestart(b *testing.B) {
	for _, transport := range transports {
		b.Run(transport.String(), func(b *testing.B) {
			mq := rocketmqtest.RunT(b)
			mq.CreateTopic("topic", 4)
			c := open(b, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, transport })
			came := make(chan string, 1000)
			if _, err := c.Subscribe(b.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}}, func(_ context.Context, d broker.Delivery) error {
				came <- string(d.Body)
				return nil
			}); err != nil {
				b.Fatal(err)
			}
			sender := open(b, func(c *rocketmq.Config) { c.NameServers, c.Transport = []string{mq.Addr()}, rocketmq.Own })
			var took, sends []time.Duration
			for i := range b.N {
				body := strconv.Itoa(i)
				mq.Stop(rocketmqtest.LoseNothing)
				time.Sleep(500 * time.Millisecond)
				if err := mq.Start(); err != nil {
					b.Fatal(err)
				}
				back := time.Now()
				for {
					if _, err := sender.Send(b.Context(), broker.Message{Topic: "topic", Body: []byte(body)}); err == nil {
						break
					}
					time.Sleep(5 * time.Millisecond)
				}
				sends = append(sends, time.Since(back))
				for got := range came {
					if got == body {
						break
					}
				}
				took = append(took, time.Since(back))
			}
			slices.Sort(took)
			slices.Sort(sends)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
			b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
			b.ReportMetric(float64(sends[len(sends)*99/100].Milliseconds()), "p99-send-ms")
		})
	}
}
