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

// TestFirstSends sends to new topics from many goroutines at once. The client learns a topic's queues before it learns
// their broker's address, and refuses who comes in between.
func TestFirstSends(t *testing.T) {
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
