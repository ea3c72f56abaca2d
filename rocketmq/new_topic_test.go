package rocketmq_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/broker"
)

// TestSendsToANewTopic sends to new topics from many goroutines at once. rocketmq-client-go learns a topic's queues before their broker's
// address, and fails sends in between.
func TestSendsToANewTopic(t *testing.T) {
	t.Parallel()
	c := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 20 {
		topic := "first-" + strings.ReplaceAll(uuid.NewString(), "-", "")
		if err := c.CreateTopics(ctx, broker.Topic{Name: topic, Queues: 2}); err != nil {
			t.Fatal(err)
		}
		var sends sync.WaitGroup
		for range 32 {
			sends.Go(func() {
				if _, err := c.Send(ctx, broker.Message{Topic: topic, Body: []byte("first")}); err != nil {
					t.Error(err)
				}
			})
		}
		sends.Wait()
	}
}
