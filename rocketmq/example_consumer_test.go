package rocketmq_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/rocketflow/rocketflow/broker"
)

// A program opens one Client, subscribes its consumer groups, and sends. (embedded stands for rocketmq.Open.)
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx) // stops the consumer as well
	if err := client.CreateTopics(ctx, broker.Topic{Name: "orders"}); err != nil {
		log.Fatal(err)
	}

	handled := make(chan string)
	if _, err := client.Subscribe(ctx, broker.Subscription{Group: "billing", Topics: []string{"orders"}},
		func(_ context.Context, d broker.Delivery) error {
			handled <- string(d.Body)
			return nil // settled; after an error the message is delivered again
		}); err != nil {
		log.Fatal(err)
	}
	if _, err := client.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "order-7", Body: []byte("placed")}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-handled)
	// Output: placed
}

// The test moves the clock of the embedded broker; with a real one the message comes in half an hour.
func ExampleClient_Schedule() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx)
	mq.CreateTopic("reminders", 1)
	handled := make(chan string)
	if _, err := client.Subscribe(ctx, broker.Subscription{Group: "mail", Topics: []string{"reminders"}},
		func(_ context.Context, d broker.Delivery) error { handled <- string(d.Body); return nil }); err != nil {
		log.Fatal(err)
	}

	due := mq.Clock().Now().Add(30 * time.Minute)
	cancelled, err := client.Schedule(ctx, broker.Message{Topic: "reminders", Body: []byte("pay order-6")}, due)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.Schedule(ctx, broker.Message{Topic: "reminders", Body: []byte("pay order-7")}, due.Add(time.Second)); err != nil {
		log.Fatal(err)
	}
	if err := client.Cancel(ctx, cancelled); err != nil {
		log.Fatal(err)
	}

	mq.FastForward(31 * time.Minute)
	fmt.Println(<-handled)
	// Output: pay order-7
}

// A half message is delivered when the local transaction has committed. Should the process die before Commit, the broker calls the checker
// of a member of the group.
func ExampleClient_OpenTransactionProducer() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx)
	mq.CreateTopic("orders", 1)
	handled := make(chan string)
	if _, err := client.Subscribe(ctx, broker.Subscription{Group: "billing", Topics: []string{"orders"}},
		func(_ context.Context, d broker.Delivery) error { handled <- string(d.Body); return nil }); err != nil {
		log.Fatal(err)
	}

	checker := func(context.Context, broker.Check) (broker.Decision, func(error)) {
		return broker.Unknown, nil // a real one looks the transaction up
	}
	producer, err := client.OpenTransactionProducer(ctx, "orders", checker)
	if err != nil {
		log.Fatal(err)
	}
	half, err := producer.Prepare(ctx, broker.Message{Topic: "orders", Body: []byte("placed")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("commit the local transaction")
	if err := producer.Commit(ctx, half); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-handled)
	// Output:
	// commit the local transaction
	// placed
}
