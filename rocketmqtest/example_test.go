//go:build !race

package rocketmqtest_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// A message for half an hour from now comes at once when the clock is moved, though the first answer to its sender is
// lost on the way. In a test RunT takes the place of New and Close.
func Example() {
	mq, err := rocketmqtest.New(rocketmqtest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer mq.Close()
	mq.CreateTopic("reminders", 1)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "example", Clock: mq.Clock()})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	came := make(chan broker.Delivery)
	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: "example", Topics: []string{"reminders"}}, func(_ context.Context, d broker.Delivery) error {
		came <- d
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Stop(ctx)

	tea := broker.Message{Topic: "reminders", Body: []byte("tea")}
	mq.Control(rocketmqtest.Once("SEND_MESSAGE", rocketmqtest.DropResponse()))
	short, cancelShort := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancelShort()
	_, err = client.Schedule(short, tea, mq.Clock().Now().Add(30*time.Minute))
	fmt.Println("the sender knows:", err == nil)

	mq.FastForward(30*time.Minute + time.Second)
	d := <-came
	fmt.Printf("%s came\n", d.Body)
	// Output:
	// the sender knows: false
	// tea came
}
