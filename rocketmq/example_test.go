package rocketmq_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// embedded returns an embedded broker and a client that is connected to it. A program has a RocketMQ instead, and the addresses of its name
// servers.
func embedded(ctx context.Context) (*rocketmqtest.Server, *rocketmq.Client) {
	mq, err := rocketmqtest.New(rocketmqtest.Config{})
	if err != nil {
		log.Fatal(err)
	}
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{mq.Addr()}, Service: "example", Clock: mq.Clock(), StopQuietPeriod: -1})
	if err != nil {
		log.Fatal(err)
	}
	return mq, client
}

// The error of an invalid Config names the field.
func ExampleOpen() {
	_, err := rocketmq.Open(context.Background(), rocketmq.Config{NameServers: []string{"localhost"}, Service: "billing"})
	var invalid *rocketflow.FieldError
	if errors.As(err, &invalid) {
		fmt.Println(invalid.Field)
	}
	fmt.Println(err)
	// Output:
	// rocketmq.Config.NameServers
	// rocketmq.Config.NameServers: "localhost": want host:port
}

// With TLS the certificates of name servers and brokers are verified. What prevents a connection, here that no authority is trusted which
// has signed the certificate, is an error of Config.TLS.
func ExampleOpen_tls() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	certified := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer certified.Close()
	mq, err := rocketmqtest.New(rocketmqtest.Config{TLS: &tls.Config{Certificates: certified.TLS.Certificates}})
	if err != nil {
		log.Fatal(err)
	}
	defer mq.Close()

	authorities := x509.NewCertPool() // a program reads them from a file: see app.TLSFromEnv
	authorities.AddCert(certified.Certificate())
	client, err := rocketmq.Open(ctx, rocketmq.Config{
		NameServers: []string{mq.Addr()}, Service: "billing", Transport: rocketmq.Own, TLS: &tls.Config{RootCAs: authorities},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close(ctx)
	fmt.Println("connected:", client.Ping(ctx) == nil)

	_, err = rocketmq.Open(ctx, rocketmq.Config{
		NameServers: []string{mq.Addr()}, Service: "billing", Transport: rocketmq.Own, TLS: &tls.Config{RootCAs: x509.NewCertPool()},
	})
	var invalid *rocketflow.FieldError
	fmt.Println(errors.As(err, &invalid), invalid.Field, errors.As(err, new(x509.UnknownAuthorityError)))
	// Output:
	// connected: true
	// true rocketmq.Config.TLS true
}

// Messages with the same sharding key are stored in one queue, in the order in which they are sent.
func ExampleClient_Send() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx)
	mq.CreateTopic("orders", 4)

	first, err := client.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "order-7", Body: []byte("placed")})
	if err != nil {
		log.Fatal(err)
	}
	second, err := client.Send(ctx, broker.Message{Topic: "orders", ShardingKey: "order-7", Body: []byte("paid")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("same queue:", first.Queue == second.Queue)
	fmt.Println("offsets:", first.Offset, second.Offset)
	// Output:
	// same queue: true
	// offsets: 0 1
}

// A group is sent in as few requests as possible. Each message has an error of its own.
func ExampleClient_SendGroup() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx)
	mq.CreateTopic("orders", 4)

	errs := client.SendGroup(ctx, []broker.Message{
		{Topic: "orders", Body: []byte("one")},
		{Topic: "orders", Body: []byte("two"), Properties: map[string]string{"TAGS": "red"}},
		{Topic: "orders", Body: []byte("three")},
	})
	for i, err := range errs { // nil if all are stored
		fmt.Println(i, err)
	}
	// Output:
	// 0 <nil>
	// 1 property "TAGS" is reserved: choose another name
	// 2 <nil>
}

// A program that doesn't create its topics checks at the start that they exist.
func ExampleClient_VerifyTopics() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mq, client := embedded(ctx)
	defer mq.Close()
	defer client.Close(ctx)

	err := client.VerifyTopics(ctx, "orders")
	fmt.Println("not found:", errors.Is(err, broker.ErrTopicNotFound))
	if err := client.CreateTopics(ctx, broker.Topic{Name: "orders", Queues: 4, Kind: broker.FIFO}); err != nil {
		log.Fatal(err)
	}
	fmt.Println("now:", client.VerifyTopics(ctx, "orders"))
	// Output:
	// not found: true
	// now: <nil>
}

// Tee joins the listener of metrics with one's own.
func ExampleTee() {
	metrics := &rocketmq.Listener{HandlerFailed: func(i rocketmq.HandlerInfo) { fmt.Println("count a failure of", i.Group) }}
	alerts := &rocketmq.Listener{HandlerFailed: func(i rocketmq.HandlerInfo) {
		if i.Attempt > 10 {
			fmt.Println("alert:", i.Topic, i.MessageID, i.Err)
		}
	}}
	all := rocketmq.Tee(metrics, alerts) // for Config.Listener

	all.HandlerFailed(rocketmq.HandlerInfo{Group: "billing", Topic: "orders", MessageID: "7F01", Attempt: 11, Err: errors.New("no such account")})
	// Output:
	// count a failure of billing
	// alert: orders 7F01 no such account
}
