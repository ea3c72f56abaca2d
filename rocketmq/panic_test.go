package rocketmq_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestPanicsOfTheApplicationEndOneCall: the functions of a Listener and the done function of SendAsync may panic or call runtime.Goexit; the
// client works on.
func TestPanicsOfTheApplicationEndOneCall(t *testing.T) {
	t.Parallel()
	for what, end := range map[string]func(){"panic": func() { panic("listener") }, "Goexit": runtime.Goexit} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			mq := testbroker.Start(t)
			ctx := deadline(t, 2*time.Minute)
			var up, down, failed, restarted, checked atomic.Int32
			c := open(t, at(mq), func(c *rocketmq.Config) {
				c.Listener = &rocketmq.Listener{
					BrokerUp:          func(rocketmq.BrokerInfo) { up.Add(1); end() },
					BrokerDown:        func(rocketmq.BrokerInfo) { down.Add(1); end() },
					HandlerFailed:     func(rocketmq.HandlerInfo) { failed.Add(1); end() },
					ConsumerRestarted: func(rocketmq.ConsumerInfo) { restarted.Add(1); end() },
					CheckAnswered:     func(rocketmq.CheckInfo) { checked.Add(1); end() },
				}
			})
			topic := unique("guard")
			createTopic(t, c, broker.Topic{Name: topic, Queues: 1})
			got := make(chan string, 10)
			var tries atomic.Int32
			if _, err := c.Subscribe(ctx, broker.Subscription{Group: unique("group"), Topics: []string{topic}, MaxInFlight: 1}, func(_ context.Context, d broker.Delivery) error {
				if tries.Add(1) == 1 {
					return errors.New("not now")
				}
				got <- string(d.Body)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				done := make(chan struct{})
				if err := c.SendAsync(ctx, broker.Message{Topic: topic, Body: []byte("sent")}, func(broker.Receipt, error) { close(done); end() }); err != nil {
					t.Fatal(err)
				}
				<-done
			}
			expect := func(n int) {
				t.Helper()
				for range n {
					select {
					case <-got:
					case <-ctx.Done():
						t.Fatal("messages are missing")
					}
				}
			}
			expect(3)
			mq.Kill()
			poll.Succeeds(t, 30*time.Second, func() error {
				if down.Load() == 0 {
					return errors.New("broker isn't down")
				}
				return nil
			})
			if err := mq.Restart(ctx); err != nil {
				t.Fatal(err)
			}
			poll.Succeeds(t, time.Minute, func() error {
				if up.Load() < 2 || transport == rocketmq.ClientGo && restarted.Load() == 0 || failed.Load() == 0 {
					return errors.New("the listener was not called")
				}
				_, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("after")})
				return err
			})
			expect(1)
		})
	}
}
