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

// start starts a server with a topic, and opens a client. In a test RunT takes the place of New and Close.
func start(config rocketmqtest.Config) (context.Context, *rocketmqtest.Server, *rocketmq.Client, func()) {
	mq, err := rocketmqtest.New(config)
	if err != nil {
		log.Fatal(err)
	}
	mq.CreateTopic("reminders", 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "example", Clock: mq.Clock()})
	if err != nil {
		log.Fatal(err)
	}
	return ctx, mq, client, func() {
		_ = client.Close(ctx)
		cancel()
		mq.Close()
	}
}

// A server listens on loopback until Close. Any client of RocketMQ can use it.
func Example() {
	mq, err := rocketmqtest.New(rocketmqtest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer mq.Close()
	mq.CreateTopic("reminders", 1)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "example"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)

	received := make(chan broker.Delivery)
	consumer, err := client.Subscribe(ctx, broker.Subscription{Group: "example", Topics: []string{"reminders"}},
		func(_ context.Context, d broker.Delivery) error {
			received <- d
			return nil
		})
	if err != nil {
		log.Fatal(err)
	}
	defer consumer.Stop(ctx)

	if _, err := client.Send(ctx, broker.Message{Topic: "reminders", Body: []byte("tea")}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("received: %s\n", (<-received).Body)
	// Output:
	// received: tea
}

// A timer of half an hour fires when the clock is moved.
func ExampleServer_FastForward() {
	ctx, mq, client, stop := start(rocketmqtest.Config{})
	defer stop()

	tea := broker.Message{Topic: "reminders", Body: []byte("tea")}
	if _, err := client.Schedule(ctx, tea, mq.Clock().Now().Add(30*time.Minute)); err != nil {
		log.Fatal(err)
	}
	fmt.Println("timers:", mq.Status().Timers, "messages:", len(mq.Messages("reminders")))
	mq.FastForward(30*time.Minute + time.Second)
	fmt.Println("timers:", mq.Status().Timers, "messages:", len(mq.Messages("reminders")))
	// Output:
	// timers: 1 messages: 0
	// timers: 0 messages: 1
}

// The broker stores the message, but its response is lost: the sender can't know.
func ExampleServer_Control() {
	ctx, mq, client, stop := start(rocketmqtest.Config{})
	defer stop()

	remove := mq.Control(func(r rocketmqtest.Request) rocketmqtest.Action {
		if r.Topic == "reminders" && r.Properties["KEYS"] == "tea" {
			return rocketmqtest.DropResponse()
		}
		return rocketmqtest.Pass
	})
	defer remove()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := client.Send(short, broker.Message{Topic: "reminders", Keys: []string{"tea"}, Body: []byte("tea")})
	fmt.Println("sent:", err == nil)
	fmt.Println("stored:", len(mq.Messages("reminders")) > 0)
	// Output:
	// sent: false
	// stored: true
}

// A hook that Once returns acts on one request: here the broker refuses the first send.
func ExampleOnce() {
	ctx, mq, client, stop := start(rocketmqtest.Config{})
	defer stop()

	const systemError = 1
	defer mq.Control(rocketmqtest.Once("SEND_MESSAGE_V2", rocketmqtest.Respond(systemError, "disk full")))()
	for range 2 {
		_, err := client.Send(ctx, broker.Message{Topic: "reminders", Body: []byte("tea")})
		fmt.Println("sent:", err == nil)
	}
	// Output:
	// sent: false
	// sent: true
}

// A seed injects the same faults in every run.
func ExampleFaults() {
	faults := &rocketmqtest.Faults{Seed: 7, DropResponse: 0.3, Duplicate: 0.3}
	for _, key := range []string{"tea", "cake", "milk"} { // what a server calls for each request, see Server.Control
		faults.Hook(rocketmqtest.Request{
			Name: "SEND_MESSAGE", Group: "kitchen", Topic: "reminders", Key: key, Properties: map[string]string{"KEYS": key},
		})
	}
	fmt.Print(faults)
	// Output:
	// faults of seed 7:
	//   SEND_MESSAGE kitchen reminders/cake #1: drop the response
	//   SEND_MESSAGE kitchen reminders/milk #1: drop the response
}

// A power failure loses a message that the broker had acknowledged but not yet written to disk.
func ExampleServer_Restart() {
	ctx, mq, client, stop := start(rocketmqtest.Config{FlushInterval: time.Hour})
	defer stop()

	if _, err := client.Send(ctx, broker.Message{Topic: "reminders", Body: []byte("tea")}); err != nil {
		log.Fatal(err)
	}
	for _, loss := range []rocketmqtest.Loss{rocketmqtest.LoseMemory, rocketmqtest.LoseUnflushed} {
		if err := mq.Restart(loss); err != nil {
			log.Fatal(err)
		}
		fmt.Println("messages:", len(mq.Messages("reminders")))
	}
	// Output:
	// messages: 1
	// messages: 0
}

// A partition separates all clients until it heals.
func ExampleServer_Partition() {
	ctx, mq, client, stop := start(rocketmqtest.Config{})
	defer stop()

	heal := mq.Partition(nil, rocketmqtest.Silent)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err := client.Send(short, broker.Message{Topic: "reminders", Body: []byte("tea")})
	fmt.Println("sent:", err == nil)
	heal()
	if _, err := client.Send(ctx, broker.Message{Topic: "reminders", Body: []byte("tea")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent after the partition")
	// Output:
	// sent: false
	// sent after the partition
}
